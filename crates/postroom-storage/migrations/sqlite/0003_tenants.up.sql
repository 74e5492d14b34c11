-- Which organizations have a database of their own, and where it is. In such a database this table is empty.
create table tenants (
  cell               integer primary key,
  id                 blob    not null unique check (length(id) = 16),
  org_id             integer not null unique references organization (org),
  initialize         integer not null default 0, -- 1: complete; a row is made first, then what it stands for
  name               text    not null,
  url                text    not null unique,    -- its directory, below the data directory
  database           text    not null,           -- the file in there
  read_only_database text,
  username           text,
  migration_version  integer not null default 0,
  begun              integer not null default 0, -- how often it was begun to make it
  awake              integer not null default 0, -- 1: something may wait in there
  wakes              integer not null default 0,
  slept_at           integer
) strict;

-- Moved by every change of what is known of tenants and their organizations.
alter table revision add column tenants integer not null default 0;
