-- Organizations that are being moved, or have moved away, beside running servers. What an organization owns here is not
-- written any more once its row is past 'announced': the database itself refuses it, whoever asks and however late.
create table moves (
  org   bigint  primary key references organizations (org),
  move  uuid,                              -- the move that is under way; null once it has ended
  stage text    not null check (stage in (
    'announced',                           -- nodes let go of it
    'fenced',                              -- nothing of it is written; it is looked whether all nodes have let go
    'sealed',                              -- nothing of it is written, and no node holds anything of it
    'ended')),                             -- a database of its own that is about to be left, its audit log too
  acks  integer[] not null default '{}'    -- nodes that have let go, for this move
);
alter table moves enable row level security, force row level security;
create trigger revise after insert or delete or update of move on moves for each row execute function revise();

-- A state of its own, so that it is not taken for a missing right.
create function refuse_moved() returns boolean language plpgsql set search_path = pg_catalog as $$
begin
  raise exception 'the organization is being moved, or has moved' using errcode = 'PM001';
end
$$;
revoke all on function refuse_moved() from public;

do $$
declare
  owned text;
  part  text;
  parts text := 'postroom_receiver, postroom_worker, postroom_api, postroom_dead_letter';
  here  text := '(org <> all (array(select moves.org from public.moves where moves.stage <> ''announced'')))';
begin
  -- What is deleted of such an organization stays; what is written is refused. Not to the platform: what it writes of an
  -- organization that is elsewhere follows from who is who, and upkeep waits for moves.
  foreach owned in array array['sources', 'source_secrets', 'endpoints', 'endpoint_secrets', 'idempotency_keys', 'events',
      'attempts', 'exceptions', 'replays', 'duplicate_guard', 'rejections'] loop
    execute format('create policy insert_here on %I as restrictive for insert to %s with check (case when %s then true '
                   'else public.refuse_moved() end)', owned, parts, here);
    execute format('create policy update_here on %I as restrictive for update to %s using (true) with check (case when %s '
                   'then true else public.refuse_moved() end)', owned, parts, here);
    execute format('create policy delete_here on %I as restrictive for delete to %s using %s', owned, parts, here);
  end loop;
  execute format('create policy insert_here on audit_logs as restrictive for insert to postroom_api, postroom_dead_letter, '
                 'postroom_platform with check (case when %s then true else public.refuse_moved() end)',
                 replace(here, '<> ''announced''', '= ''ended'''));
  create policy of_one_organization on moves to postroom_api, postroom_dead_letter
    using (org = (select nullif(current_setting('app.current_organization_id', true), '')::bigint))
    with check (org = (select nullif(current_setting('app.current_organization_id', true), '')::bigint));
  foreach part in array array['postroom_receiver', 'postroom_worker', 'postroom_platform', 'postroom_keys', 'postroom_copy'] loop
    execute format('create policy of_all_for_%s on moves to %I using (true) with check (true)', part, part);
  end loop;
  execute format('grant select (org, stage) on moves to %s, postroom_platform', parts);
  execute format('grant execute on function refuse_moved() to %s, postroom_platform', parts);
end
$$;
grant select (move, acks), update (move, acks), delete on moves to postroom_worker;
grant select (move) on moves to postroom_platform;
grant select (org_id) on tenants to postroom_worker;
grant select (move), update (move) on moves to postroom_keys;
grant select, insert, update (move, stage, acks), delete on moves to postroom_copy;
