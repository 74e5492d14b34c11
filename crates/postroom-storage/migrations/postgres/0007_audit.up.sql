-- The audit log as a chain: each entry is sealed with the one before. Takes the place of a thin table that no release had.
-- The parts add entries and read them; nobody changes or deletes one.
drop table audit_logs;
create table audit_logs (
  org           bigint      not null,                              -- 0: what is done outside of every organization
  chain         uuid        not null,                              -- of the database in which it was written
  number        bigint      not null,                              -- its place in the organization's chain, from 1
  id            uuid        not null,                              -- ascends in the chain
  at            timestamptz not null,
  actor         text        not null,
  action        text        not null,
  resource_type text        not null,
  resource_id   text,
  old_values    text,
  new_values    text,
  address       text,
  request_id    text,
  previous      bytea       not null check (length(previous) = 32),
  hash          bytea       not null check (length(hash) = 32),
  primary key (org, chain, number),
  unique (org, id)
);

alter table audit_logs enable row level security, force row level security;
create policy of_one_organization on audit_logs to postroom_api, postroom_dead_letter
  using (org = (select nullif(current_setting('app.current_organization_id', true), '')::bigint))
  with check (org = (select nullif(current_setting('app.current_organization_id', true), '')::bigint));
create policy of_all_for_postroom_authorizer on audit_logs to postroom_authorizer using (true) with check (true);
create policy of_all_for_postroom_platform on audit_logs to postroom_platform using (true) with check (true);
create policy of_all_for_postroom_copy on audit_logs to postroom_copy using (true) with check (true);
grant select, insert on audit_logs to postroom_api, postroom_platform, postroom_copy;
grant select (org, chain, number, id, hash), insert on audit_logs to postroom_authorizer, postroom_dead_letter;

-- Who made it, as the audit log names actors; unknown for what is older than this.
alter table organizations add column created_by text;
alter table api_keys add column created_by text;
alter table sources add column created_by text;
alter table endpoints add column created_by text;
grant select (created_by) on organizations, api_keys to postroom_api, postroom_platform;
