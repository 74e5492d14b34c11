-- What people decide: organizations, keys, sources, endpoints. Small tables, always behind the in-memory directory.
-- Ids are 16 bytes (UUIDv7) to the outside and integers inside; times are milliseconds since the epoch.
create table meta (
  name  text primary key,
  value blob not null
) strict, without rowid;

-- Moved by every process that changes configuration beside a running server, which then reads it again.
create table revision (
  one   integer primary key check (one = 1),
  value integer not null
) strict;
insert into revision (one, value) values (1, 0);

create table organization (
  org                  integer primary key,
  id                   blob    not null unique check (length(id) = 16),
  slug                 text    not null unique,
  name                 text    not null,
  plan                 text    not null,
  webhook_limit        integer,
  is_active            integer not null,
  mandrill_secret      blob,
  mandrill_fingerprint blob    unique,            -- keyed hash: equal secrets are seen without being read
  endpoint_number      integer not null default 0, -- the last number given to an endpoint
  created_at           integer not null,
  updated_at           integer not null
) strict;

create table api_key (
  key          integer primary key,
  org          integer not null references organization (org),
  id           blob    not null unique check (length(id) = 16),
  name         text    not null,
  scopes       text    not null,
  hash         blob    not null unique check (length(hash) = 32),
  last_four    text    not null,
  expires_at   integer,
  revoked_at   integer,
  last_used_at integer,
  created_at   integer not null
) strict;
create index api_key_by_org on api_key (org, key);

create table source (
  source     integer primary key,
  org        integer not null references organization (org),
  id         blob    not null unique check (length(id) = 16),
  name       text    not null,
  provider   text    not null,
  options    text    not null,
  is_active  integer not null,
  is_implied integer not null default 0,   -- stands for the organization's own Mandrill secret
  created_at integer not null,
  updated_at integer not null,
  deleted_at integer,                      -- events keep pointing here
  unique (org, source)
) strict;
create unique index source_name on source (org, name) where deleted_at is null and is_implied = 0;
create unique index source_implied on source (org) where is_implied = 1;

create table source_secret (
  secret     integer primary key,
  org        integer not null,
  source     integer not null,
  id         blob    not null unique check (length(id) = 16), -- binds the ciphertext to its row
  value      blob,                                            -- null once erased
  created_at integer not null,
  expires_at integer,
  foreign key (org, source) references source (org, source)
) strict;
create index source_secret_by_source on source_secret (source, secret);
create index source_secret_by_end on source_secret (expires_at) where expires_at is not null and value is not null;

create table endpoint (
  endpoint        integer primary key,
  org             integer not null references organization (org),
  id              blob    not null unique check (length(id) = 16),
  number          integer not null,
  url             text    not null,
  description     text    not null,
  event_types     text    not null,
  source_ids      text    not null,
  filter          text,
  retry_schedule  text,
  timeout_ms      integer,
  rate_limit      integer,
  headers         blob,
  signature       text    not null,
  version         integer not null default 0, -- moved by every change
  disabled_reason text    check (disabled_reason in ('gone', 'disabled')),
  disabled_at     integer,
  created_at      integer not null,
  updated_at      integer not null,
  deleted_at      integer,
  unique (org, number),
  unique (org, endpoint)
) strict;

create table endpoint_secret (
  secret     integer primary key,
  org        integer not null,
  endpoint   integer not null,
  id         blob    not null unique check (length(id) = 16),
  value      blob,
  created_at integer not null,
  expires_at integer,
  foreign key (org, endpoint) references endpoint (org, endpoint)
) strict;
create index endpoint_secret_by_endpoint on endpoint_secret (endpoint, secret);
create index endpoint_secret_by_end on endpoint_secret (expires_at) where expires_at is not null and value is not null;

create table audit (
  audit  integer primary key,
  org    integer not null references organization (org),
  at     integer not null,
  actor  text    not null,
  action text    not null,
  target text    not null
) strict;
create index audit_by_org on audit (org, audit);

create table idempotency (
  org          integer not null, -- 0: a super admin, outside of every organization
  key          text    not null,
  request_hash blob    not null check (length(request_hash) = 32),
  claimed_at   integer not null,
  status       integer,
  body         blob,
  primary key (org, key)
) strict, without rowid;
create index idempotency_by_age on idempotency (claimed_at);
