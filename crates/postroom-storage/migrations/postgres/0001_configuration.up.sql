-- What people decide: organizations and API keys (who is who), sources and endpoints (what is received and delivered).
-- The two sides are tables of their own, so that the part that proves callers never sees a signing secret and the
-- part that delivers never sees an API key. Ids are UUIDv7 to the outside and integers inside.
create table meta (
  name  text  primary key,
  value bytea not null
);

create table organizations (
  org                  bigint      generated always as identity primary key,
  id                   uuid        not null unique,
  slug                 text        not null constraint organizations_slug unique,
  name                 text        not null,
  plan                 text        not null,
  webhook_limit        bigint,
  is_active            boolean     not null,
  mandrill_secret      bytea,
  mandrill_fingerprint bytea       constraint organizations_mandrill_fingerprint unique, -- keyed hash: equal secrets are seen without being read
  endpoint_number      integer     not null default 0,                                   -- the last number given to an endpoint
  created_at           timestamptz not null,
  updated_at           timestamptz not null
);

-- The organizations with a database of their own, a cell: where it is and how far its making has come. Never a password:
-- each process goes there with its own logins. In a cell this table is empty.
create table tenants (
  cell               bigint      generated always as identity (maxvalue 2147483647) primary key, -- the upper half of endpoint keys
  id                 uuid        not null unique,
  org_id             bigint      not null unique references organizations (org),
  initialize         boolean     not null default false, -- whether all steps of its making are done; before, nobody gets in
  begun              bigint      not null default 1,     -- how often its making was begun: only the last one finishes it
  name               text        not null,               -- the slug it was made with, for people
  url                text        not null unique,        -- postgres://host:port/database
  database           text        not null,
  read_only_database text        check (read_only_database is null), -- what is read is read where it is written
  username           text,                               -- the login it was made for; each process comes with its own
  migration_version  bigint      not null default 0,     -- as last seen by who migrated it
  awake              boolean     not null default false, -- somebody may live there, or something wait there
  wakes              bigint      not null default 0,     -- moved by whoever comes in, and when somebody has to look
  slept_at           timestamptz,
  created_at         timestamptz not null
);

create table api_keys (
  org          bigint      not null references organizations (org),
  key          bigint      generated always as identity,
  id           uuid        not null,
  name         text        not null,
  scopes       text        not null,
  hash         bytea       not null unique check (length(hash) = 32),
  last_four    text        not null,
  expires_at   timestamptz,
  revoked_at   timestamptz,
  last_used_at timestamptz,
  created_at   timestamptz not null,
  primary key (org, key),
  unique (org, id)
);

create table sources (
  org        bigint      not null references organizations (org),
  source     bigint      generated always as identity,
  id         uuid        not null,
  name       text        not null,
  provider   text        not null,
  options    text        not null,
  is_active  boolean     not null,
  is_implied boolean     not null default false, -- stands for the organization's own Mandrill secret
  created_at timestamptz not null,
  updated_at timestamptz not null,
  deleted_at timestamptz,                        -- events keep pointing here
  primary key (org, source),
  unique (org, id)
);
create unique index sources_name on sources (org, name) where deleted_at is null and not is_implied;
create unique index sources_implied on sources (org) where is_implied;

create table source_secrets (
  org        bigint      not null,
  secret     bigint      generated always as identity,
  source     bigint      not null,
  id         uuid        not null,               -- binds the ciphertext to its row
  value      bytea,                              -- null once erased
  is_erased  boolean     not null generated always as (value is null) stored, -- what upkeep sees of the value
  created_at timestamptz not null,
  expires_at timestamptz,
  primary key (org, secret),
  foreign key (org, source) references sources (org, source)
);
create index source_secrets_by_source on source_secrets (org, source, secret);
create index source_secrets_by_end on source_secrets (expires_at) where expires_at is not null and not is_erased;

create table endpoints (
  org             bigint      not null references organizations (org),
  endpoint        bigint      generated always as identity,
  id              uuid        not null,
  number          integer     not null,
  url             text        not null,
  description     text        not null,
  event_types     text        not null,
  source_ids      text        not null,
  filter          text,
  retry_schedule  text,
  timeout_ms      integer,
  rate_limit      integer,
  headers         bytea,
  signature       text        not null,
  version         bigint      not null default 0, -- moved by every change
  disabled_reason text        check (disabled_reason in ('gone', 'disabled')),
  disabled_at     timestamptz,
  created_at      timestamptz not null,
  updated_at      timestamptz not null,
  deleted_at      timestamptz,
  primary key (org, endpoint),
  unique (org, id),
  unique (org, number)
);
create unique index endpoints_by_number on endpoints (endpoint); -- deliveries name an endpoint by its number alone

create table endpoint_secrets (
  org        bigint      not null,
  secret     bigint      generated always as identity,
  endpoint   bigint      not null,
  id         uuid        not null,
  value      bytea,
  is_erased  boolean     not null generated always as (value is null) stored,
  created_at timestamptz not null,
  expires_at timestamptz,
  primary key (org, secret),
  foreign key (org, endpoint) references endpoints (org, endpoint)
);
create index endpoint_secrets_by_endpoint on endpoint_secrets (org, endpoint, secret);
create index endpoint_secrets_by_end on endpoint_secrets (expires_at) where expires_at is not null and not is_erased;

create table audit_logs (
  org    bigint      not null references organizations (org),
  audit  bigint      generated always as identity,
  at     timestamptz not null,
  actor  text        not null,
  action text        not null,
  target text        not null,
  primary key (org, audit)
);

create table idempotency_keys (
  org          bigint      not null, -- 0: a super admin, outside of every organization
  key          text        not null,
  request_hash bytea       not null check (length(request_hash) = 32),
  claimed_at   timestamptz not null,
  status       smallint,
  body         bytea,
  primary key (org, key)
);
create index idempotency_keys_by_age on idempotency_keys (claimed_at);

-- Which organization's configuration was changed by which transaction: how every node notices, without a query per
-- event. Written by triggers, so that no statement can forget it.
create table revisions (
  org bigint primary key,
  tx  bigint not null
);
create index revisions_by_tx on revisions (tx);

create function revise() returns trigger language plpgsql set search_path = pg_catalog as $$
begin
  insert into public.revisions (org, tx) values (coalesce(new.org, old.org), txid_current())
  on conflict (org) do update set tx = excluded.tx where revisions.tx <> excluded.tx;
  return null;
end
$$;

create function revise_tenant() returns trigger language plpgsql set search_path = pg_catalog as $$
begin
  insert into public.revisions (org, tx) values (coalesce(new.org_id, old.org_id), txid_current())
  on conflict (org) do update set tx = excluded.tx where revisions.tx <> excluded.tx;
  return null;
end
$$;

create trigger revise after insert or delete or update of slug, plan, webhook_limit, is_active, mandrill_secret
  on organizations for each row execute function revise();
create trigger revise after insert or delete or update of scopes, expires_at, revoked_at
  on api_keys for each row execute function revise();
create trigger revise after insert or update or delete on sources for each row execute function revise();
create trigger revise after insert or update or delete on source_secrets for each row execute function revise();
create trigger revise after insert or update or delete on endpoints for each row execute function revise();
create trigger revise after insert or update or delete on endpoint_secrets for each row execute function revise();
create trigger revise after insert or delete or update of initialize, url, database, username, awake, wakes
  on tenants for each row execute function revise_tenant();
