-- What each part of the process may do. The roles are made by `postroom migrate` before this runs; none owns anything.
-- Every table that an organization owns has forced row-level security: the api and dead-letter parts see the rows of
-- the organization that their transaction names, and nothing without one; the parts that work for all organizations
-- at once (authorizer, receiver, worker, platform) see the columns that they are granted, of all rows.
do $$
declare
  owned text;
  mine  text := '(org = (select nullif(current_setting(''app.current_organization_id'', true), '''')::bigint))';
begin
  foreach owned in array array['organizations', 'api_keys', 'sources', 'source_secrets', 'endpoints', 'endpoint_secrets',
      'audit_logs', 'idempotency_keys', 'revisions', 'events', 'attempts', 'exceptions', 'replays', 'duplicate_guard',
      'usage', 'rejections'] loop
    execute format('alter table %I enable row level security, force row level security', owned);
    execute format('create policy of_one_organization on %I to postroom_api, postroom_dead_letter using %s with check %s',
                   owned, mine, mine);
  end loop;
  alter table tenants enable row level security, force row level security;
  mine := replace(mine, 'org =', 'org_id =');
  execute format('create policy of_one_organization on tenants to postroom_api, postroom_dead_letter using %s with check %s',
                 mine, mine);
end
$$;

do $$
declare
  part  record;
  owned text;
begin
  for part in select * from (values
      ('postroom_authorizer', array['organizations', 'tenants', 'api_keys', 'revisions']),
      ('postroom_receiver',   array['organizations', 'sources', 'source_secrets', 'endpoints', 'revisions', 'events',
                                    'exceptions', 'duplicate_guard', 'usage', 'rejections']),
      ('postroom_worker',     array['organizations', 'endpoints', 'endpoint_secrets', 'revisions', 'events', 'attempts',
                                    'exceptions', 'usage', 'tenants']),
      ('postroom_platform',   array['organizations', 'tenants', 'api_keys', 'sources', 'source_secrets', 'endpoints',
                                    'endpoint_secrets', 'audit_logs', 'revisions', 'events', 'attempts', 'exceptions',
                                    'replays', 'duplicate_guard', 'usage', 'rejections', 'idempotency_keys']),
      ('postroom_keys',       array['organizations', 'tenants', 'source_secrets', 'endpoints', 'endpoint_secrets', 'revisions',
                                    'idempotency_keys'])
    ) as parts (role, tables) loop
    foreach owned in array part.tables loop
      execute format('create policy %I on %I to %I using (true) with check (true)', 'of_all_for_' || part.role, owned, part.role);
    end loop;
  end loop;
end
$$;

grant usage on schema public to postroom_authorizer, postroom_receiver, postroom_worker, postroom_api,
  postroom_dead_letter, postroom_platform, postroom_keys;

-- Authorizer: who is who. No signing secret, no payload.
grant select (org, id, slug, is_active) on organizations to postroom_authorizer;
grant select (org_id) on tenants to postroom_authorizer;
grant select (org, key, id, scopes, hash, expires_at, revoked_at, last_used_at) on api_keys to postroom_authorizer;
grant update (last_used_at) on api_keys to postroom_authorizer;
grant select on revisions to postroom_authorizer;

-- Receiver: sources with their secrets, which endpoints want what; appends.
grant select (org, id, slug, plan, webhook_limit, is_active, mandrill_secret) on organizations to postroom_receiver;
grant select on sources, source_secrets, revisions, nodes to postroom_receiver;
grant select (org, endpoint, id, number, event_types, source_ids, filter, version, disabled_reason, deleted_at) on endpoints
  to postroom_receiver;
grant insert on events, exceptions to postroom_receiver;
grant select (org, id, node, tx, targets) on events to postroom_receiver;
grant select, insert, update (event), delete on duplicate_guard to postroom_receiver;
grant select, insert, update (count) on usage to postroom_receiver;
grant select (org, id, source, received_at, body), insert, delete on rejections to postroom_receiver;
grant update (epoch) on nodes to postroom_receiver;

-- Worker: endpoints with their secrets, the log. No API key, no user.
grant select (org, id, is_active) on organizations to postroom_worker;
grant select on endpoints, endpoint_secrets, events, nodes, shards to postroom_worker;
grant update (disabled_reason, disabled_at, version, updated_at) on endpoints to postroom_worker;
grant select, insert, update (tx) on revisions to postroom_worker;
grant select, insert on attempts to postroom_worker;
grant select, insert, delete, update (state, due_at, attempts, attempts_of_schedule, reason, since) on exceptions to postroom_worker;
grant select, insert, update (count) on usage to postroom_worker;
grant insert, delete on nodes to postroom_worker;
grant update (lease_until, watermark, counted, state) on nodes to postroom_worker;
grant update (node, epoch, lease_until) on shards to postroom_worker;
grant select (awake, wakes), update (wakes) on tenants to postroom_worker;

-- API: everything of one organization. Not the hash of a key: it is written once, and compared by the authorizer only.
grant select (org, id, slug, name, plan, webhook_limit, is_active, mandrill_fingerprint, endpoint_number, created_at, updated_at),
  update (name, endpoint_number, updated_at) on organizations to postroom_api;
grant select (org, key, id, name, scopes, last_four, expires_at, revoked_at, last_used_at, created_at), insert,
  update (revoked_at) on api_keys to postroom_api;
grant select, insert, update (name, options, is_active, updated_at, deleted_at) on sources to postroom_api;
grant select, insert, update (url, description, event_types, source_ids, filter, retry_schedule, timeout_ms, rate_limit, headers,
  signature, version, disabled_reason, disabled_at, updated_at, deleted_at) on endpoints to postroom_api;
grant select, insert, update (value, expires_at), delete on source_secrets, endpoint_secrets to postroom_api;
grant select, insert, update (request_hash, claimed_at, status, body), delete on idempotency_keys to postroom_api;
grant select, insert, update (tx) on revisions to postroom_api;
grant select, insert on audit_logs to postroom_api;
grant select on events, attempts, exceptions, replays, usage to postroom_api;
grant select, update (event) on rejections to postroom_api;
grant select (org, hash, event) on duplicate_guard to postroom_api;
grant select (node, watermark, state) on nodes to postroom_api, postroom_dead_letter;

-- Dead letters: moves exceptions of one organization. No secrets, no payloads.
grant select (org, endpoint, id, number, url, disabled_reason, deleted_at) on endpoints to postroom_dead_letter;
grant select (org, id, node, tx, source, type, external_id, targets) on events to postroom_dead_letter;
grant select on attempts to postroom_dead_letter;
grant select, insert, update (state, due_at, attempts, attempts_of_schedule, reason, since), delete on exceptions to postroom_dead_letter;
grant select, insert on replays to postroom_dead_letter;

-- Platform: super admins and upkeep. No payloads; secrets only go in.
grant select (org, id, slug, name, plan, webhook_limit, is_active, mandrill_fingerprint, endpoint_number, created_at, updated_at),
  insert, update (slug, name, plan, webhook_limit, is_active, mandrill_secret, mandrill_fingerprint, endpoint_number, updated_at)
  on organizations to postroom_platform;
grant select (org, key, id, name, scopes, last_four, expires_at, revoked_at, last_used_at, created_at), insert
  on api_keys to postroom_platform;
grant select, insert, update (deleted_at, updated_at) on sources to postroom_platform;
grant select (org, endpoint, deleted_at), insert on endpoints to postroom_platform;
grant insert on endpoint_secrets, audit_logs to postroom_platform;
grant select (org, secret, expires_at, is_erased), update (value) on source_secrets, endpoint_secrets to postroom_platform;
grant select, insert, update (tx) on revisions to postroom_platform;
grant select, insert on meta to postroom_platform;
grant select, insert, update (initialize, begun, url, database, migration_version, awake, wakes, slept_at) on tenants
  to postroom_platform;
grant select (org, key, claimed_at), delete on idempotency_keys to postroom_platform;
grant select (org, id, node, tx, targets), delete on events to postroom_platform;
grant select (org, endpoint, event, run), delete on attempts to postroom_platform;
grant select (org, endpoint, event, run, state, due_at), delete on exceptions to postroom_platform;
grant select (org, event, endpoint, run), delete on replays to postroom_platform;
grant select, delete on duplicate_guard to postroom_platform;
grant select (org, id, received_at), delete on rejections to postroom_platform;
grant select on usage, nodes, shards to postroom_platform;

-- Keys: what the owning login does in every database, the ones of single organizations too: it seals every secret anew,
-- and notes how far each is migrated.
grant select (cell, id, org_id, initialize, name, url, database, migration_version), update (migration_version) on tenants
  to postroom_keys;
grant select (org, id, mandrill_secret), update (mandrill_secret) on organizations to postroom_keys;
grant select (org, secret, id, value), update (value) on source_secrets, endpoint_secrets to postroom_keys;
grant select (org, endpoint, id, headers), update (headers) on endpoints to postroom_keys;
grant select (org, key, body), update (body) on idempotency_keys to postroom_keys;
grant select, insert, update (tx) on revisions to postroom_keys;
grant select, update (value) on meta to postroom_keys;

revoke execute on function revise(), revise_tenant(), day_floor(date) from public;
grant execute on function day_floor(date) to postroom_platform;
grant execute on function make_partition(date) to postroom_platform, postroom_receiver;
grant execute on function drop_partition(date) to postroom_platform;
