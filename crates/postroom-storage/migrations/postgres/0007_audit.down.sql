-- Takes the audit log with it.
alter table endpoints drop column created_by;
alter table sources drop column created_by;
alter table api_keys drop column created_by;
alter table organizations drop column created_by;
drop table audit_logs;
create table audit_logs (
  org    bigint      not null references organizations (org),
  audit  bigint      generated always as identity,
  at     timestamptz not null,
  actor  text        not null,
  action text        not null,
  target text        not null,
  primary key (org, audit)
);
alter table audit_logs enable row level security, force row level security;
create policy of_one_organization on audit_logs to postroom_api, postroom_dead_letter
  using (org = (select nullif(current_setting('app.current_organization_id', true), '')::bigint))
  with check (org = (select nullif(current_setting('app.current_organization_id', true), '')::bigint));
create policy of_all_for_postroom_platform on audit_logs to postroom_platform using (true) with check (true);
create policy of_all_for_postroom_copy on audit_logs to postroom_copy using (true) with check (true);
grant select, insert on audit_logs to postroom_api, postroom_copy;
grant insert on audit_logs to postroom_platform;
