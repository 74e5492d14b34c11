-- What happens: events and attempts are only ever appended, in partitions of one day (by the time in the event's id,
-- for attempts too, so that an event and all of it go with one partition). A delivery has a row of its own (exceptions)
-- only while it is not on the straight way. No foreign keys to configuration here: these tables are written tens of
-- thousands of times a second.
--
-- tx is the transaction that wrote a row. Rows below the oldest running transaction will not become more: that makes
-- "everything since" exact with any number of writers. tx ascends, so its index grows at one end, where it stays in
-- memory; an index over ranges of pages would know nothing of the newest pages, which are the ones asked for.
create table nodes (
  node        integer     generated always as identity primary key, -- one row for each start of a process
  started_at  timestamptz not null default clock_timestamp(),
  lease_until timestamptz not null,
  watermark   bigint      not null, -- all that this node accepted in transactions before this one is settled or an exception
  counted     bigint      not null, -- ... and is counted in usage
  epoch       bigint      not null default 0, -- moved when the answer to a batch was lost: what is then still under way counts no more
  delivers    boolean     not null, -- takes shards
  key         bytea       not null default '', -- the id of the encryption key that it seals with
  state       text        not null default 'live' check (state in ('live', 'dead', 'recovered'))
);

create table shards (
  shard       smallint    primary key,
  node        integer     references nodes (node),
  epoch       bigint      not null default 0,
  lease_until timestamptz not null default '-infinity'
);
insert into shards (shard) select generate_series(0, 63);

create table events (
  org         bigint  not null,
  id          uuid    not null,     -- UUIDv7, made by the node that accepted it, ascending there
  node        integer not null,
  tx          bigint  not null,
  source      bigint,               -- null: sent by the organization itself
  type        text    not null,
  external_id text,
  targets     bytea   not null,     -- 4 bytes for each endpoint, big end first
  counted     boolean not null,     -- false: its node adds it to usage with its own mark (nodes.counted)
  headers     bytea   not null,
  body        bytea   not null,
  primary key (org, id)
) partition by range (id);
alter table events alter column body set storage external;
create index events_by_type on events (org, type, id);
create index events_by_tx on events (tx);

create table attempts (
  org              bigint      not null,
  endpoint         bigint      not null,
  event            uuid        not null,
  run              integer     not null,
  id               uuid        not null,
  tx               bigint      not null,
  number           integer     not null,
  succeeded        boolean     not null,
  status           smallint,
  error            text,
  duration_ms      bigint      not null,
  settled_at       timestamptz not null,
  url              text        not null,
  response_headers bytea,
  response_body    bytea,
  primary key (org, endpoint, event, run, id)
) partition by range (event);
create index attempts_by_tx on attempts (tx);

create table exceptions (
  org                  bigint      not null,
  endpoint             bigint      not null,
  event                uuid        not null,
  run                  integer     not null,
  state                text        not null check (state in ('waiting', 'dead_letter', 'discarded')),
  due_at               timestamptz not null,
  attempts             integer     not null,
  attempts_of_schedule integer     not null,
  reason               text,
  since                timestamptz not null, -- in this state
  primary key (org, endpoint, event, run)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
create index exceptions_due on exceptions (endpoint, due_at) where state = 'waiting';
create index exceptions_by_state on exceptions (state, org, event, endpoint, run); -- not by organization first: a delivery is looked up by its key
create index exceptions_by_event on exceptions (event);

-- One row for each replayed delivery; run 0 is the original and has none.
create table replays (
  org        bigint      not null,
  event      uuid        not null,
  endpoint   bigint      not null,
  run        integer     not null,
  created_at timestamptz not null,
  actor      text        not null,
  primary key (org, event, endpoint, run)
);
create index replays_by_event on replays (event);

-- Recognises a sender's own event ids, within the window of recognition.
create table duplicate_guard (
  org   bigint not null,
  hash  uuid   not null,
  event uuid   not null,
  primary key (org, hash)
);
create index duplicate_guard_by_event on duplicate_guard (event);

create table usage (
  org   bigint      not null,
  month timestamptz not null, -- its first moment
  count bigint      not null,
  primary key (org, month)
) with (fillfactor = 50);

create table rejections (
  org         bigint      not null,
  id          uuid        not null,
  source      bigint      not null,
  code        text        not null,
  check_name  text        not null,
  method      text        not null,
  path        text        not null,
  headers     bytea       not null,
  received_at timestamptz not null,
  event       uuid, -- what it became when verified again
  body        bytea       not null,
  primary key (org, id)
);
create index rejections_by_source on rejections (org, source, id);
create index rejections_by_age on rejections (received_at);

-- The smallest id of a day: UUIDv7 begins with 48 bits of milliseconds.
create function day_floor(day date) returns uuid language sql immutable strict set search_path = pg_catalog as $$
  select (substr(hex, 1, 8) || '-' || substr(hex, 9, 4) || '-0000-0000-000000000000')::uuid
  from (select lpad(to_hex((extract(epoch from day::timestamp) * 1000)::bigint), 12, '0') as hex) as h
$$;

-- Makes the partitions of one day, if they are not there. Owned by who migrates: the parts of the process own nothing.
create function make_partition(day date) returns boolean
  language plpgsql security definer set search_path = pg_catalog as $$
declare
  parent text;
  child  text;
begin
  if day not between date '2020-01-01' and date '2199-12-31' then
    raise exception 'no partition is made for %', day using errcode = 'invalid_parameter_value';
  end if;
  perform pg_advisory_xact_lock(hashtext('postroom partitions'));
  if to_regclass(format('public.events_%s', to_char(day, 'YYYYMMDD'))) is not null then
    return false;
  end if;
  foreach parent in array array['events', 'attempts'] loop
    child := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
    execute format('create table public.%I (like public.%I including defaults including storage)', child, parent);
    execute format('alter table public.%I enable row level security, force row level security', child);
    -- Attaching, unlike creating in place, does not stop those who are writing.
    execute format('alter table public.%I attach partition public.%I for values from (%L) to (%L)',
                   parent, child, public.day_floor(day), public.day_floor(day + 1));
  end loop;
  return true;
end
$$;

-- Drops the partitions of one day, events and attempts. That needs the tables to itself for a moment: everybody waits
-- behind whoever waits for that, so it does not wait for long.
create function drop_partition(day date) returns boolean
  language plpgsql security definer set search_path = pg_catalog set lock_timeout = '250ms' as $$
begin
  perform pg_advisory_xact_lock(hashtext('postroom partitions'));
  if to_regclass(format('public.events_%s', to_char(day, 'YYYYMMDD'))) is null then
    return false;
  end if;
  execute format('drop table public.%I, public.%I',
                 'attempts_' || to_char(day, 'YYYYMMDD'), 'events_' || to_char(day, 'YYYYMMDD'));
  return true;
end
$$;
revoke execute on function make_partition(date), drop_partition(date) from public;
