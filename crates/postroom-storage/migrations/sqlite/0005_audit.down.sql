-- Takes the audit log with it.
alter table endpoint drop column created_by;
alter table source drop column created_by;
alter table api_key drop column created_by;
alter table organization drop column created_by;
drop table audit;
create table audit (
  audit  integer primary key,
  org    integer not null references organization (org),
  at     integer not null,
  actor  text    not null,
  action text    not null,
  target text    not null
) strict;
create index audit_by_org on audit (org, audit);
