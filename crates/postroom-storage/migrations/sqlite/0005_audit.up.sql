-- The audit log as a chain: each entry is sealed with the one before. Takes the place of a thin table that no release had.
drop table audit;
create table audit (
  org           integer not null,                              -- 0: what is done outside of every organization
  chain         blob    not null check (length(chain) = 16),   -- of the database in which it was written
  number        integer not null,                              -- its place in the organization's chain, from 1
  id            blob    not null check (length(id) = 16),      -- ascends in the chain
  at            integer not null,
  actor         text    not null,
  action        text    not null,
  resource_type text    not null,
  resource_id   text,
  old_values    text,
  new_values    text,
  address       text,
  request_id    text,
  previous      blob    not null check (length(previous) = 32),
  hash          blob    not null check (length(hash) = 32),
  primary key (org, chain, number)
) strict;
create unique index audit_by_id on audit (org, id);

-- Who made it, as the audit log names actors; unknown for what is older than this.
alter table organization add column created_by text;
alter table api_key add column created_by text;
alter table source add column created_by text;
alter table endpoint add column created_by text;
