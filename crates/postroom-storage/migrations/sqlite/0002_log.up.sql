-- What happens: events and attempts are only ever appended. A delivery has a row of its own (exception) only while it
-- is not on the straight way: it waits for a retry, overflowed memory, is slow, is a replay, a dead letter, discarded.
-- No foreign keys here: these tables are written tens of thousands of times a second, in the writer's order.
create table event (
  seq         integer primary key,                           -- place in the log, never given twice
  id          blob    not null unique check (length(id) = 16), -- ascends with seq
  org         integer not null,
  source      integer,                                       -- null: sent by the organization itself
  type        text    not null,
  external_id text,
  targets     blob    not null,                              -- 4 bytes for each endpoint, big end first
  headers     blob    not null,
  body        blob    not null
) strict;

create table attempt (
  attempt          integer primary key,
  id               blob    not null check (length(id) = 16),
  org              integer not null,
  event            integer not null,
  endpoint         integer not null,
  run              integer not null,
  number           integer not null,
  succeeded        integer not null,
  status           integer,
  error            text,
  duration_ms      integer not null,
  settled_at       integer not null,                         -- ascends with attempt
  url              text    not null,
  response_headers blob,
  response_body    blob
) strict;
create index attempt_by_event on attempt (event, endpoint, run);

create table exception (
  endpoint             integer not null,
  event                integer not null,
  run                  integer not null,
  org                  integer not null,
  state                text    not null check (state in ('waiting', 'dead_letter', 'discarded')),
  due_at               integer not null,
  attempts             integer not null,
  attempts_of_schedule integer not null,
  reason               text,
  since                integer not null,                     -- in this state
  primary key (endpoint, event, run)
) strict, without rowid;
create index exception_due on exception (endpoint, due_at) where state = 'waiting';
create index exception_by_org on exception (org, state, event);

-- One row for each replayed delivery; run 0 is the original and has none.
create table replay (
  event      integer not null,
  endpoint   integer not null,
  run        integer not null,
  created_at integer not null,
  actor      text    not null,
  primary key (event, endpoint, run)
) strict, without rowid;

-- Search tables, filled behind the acknowledgement: what is above progress.indexed_upto is found by scanning event.
create table event_by_org (
  org integer not null,
  seq integer not null,
  primary key (org, seq)
) strict, without rowid;

create table event_by_type (
  org  integer not null,
  type text    not null,
  seq  integer not null,
  primary key (org, type, seq)
) strict, without rowid;

create table delivery_by_endpoint (
  endpoint integer not null,
  event    integer not null,
  run      integer not null,
  primary key (endpoint, event, run)
) strict, without rowid;

-- Recognises a sender's own event ids. Filled behind the acknowledgement; the writer holds the rest in memory.
create table duplicate_guard (
  hash  blob    primary key check (length(hash) = 16),
  event integer not null
) strict, without rowid;

create table progress (
  one          integer primary key check (one = 1),
  watermark    integer not null, -- every delivery of events up to here is settled or an exception
  indexed_upto integer not null, -- events up to here are in the search tables
  guarded_upto integer not null  -- events up to here are in duplicate_guard
) strict;
insert into progress (one, watermark, indexed_upto, guarded_upto) values (1, 0, 0, 0);

create table usage (
  org   integer not null,
  month integer not null, -- its first millisecond
  count integer not null,
  primary key (org, month)
) strict, without rowid;

create table rejection (
  seq         integer primary key,
  id          blob    not null unique check (length(id) = 16),
  org         integer not null,
  source      integer not null,
  code        text    not null,
  check_name  text    not null,
  method      text    not null,
  path        text    not null,
  headers     blob    not null,
  received_at integer not null,
  event       blob    check (length(event) = 16), -- what it became when verified again
  body        blob    not null
) strict;
create index rejection_by_org on rejection (org, seq);
create index rejection_by_source on rejection (source, seq);
