-- What `postroom tenants move` may do beside copying, as the same role: it takes over what dead nodes have left, enters an
-- organization in the registry or takes it out, and deletes what the organization leaves behind.
create policy of_all_for_postroom_copy on tenants to postroom_copy using (true) with check (true);
grant select, insert, update (wakes), delete on tenants to postroom_copy;
grant update (endpoint_number) on organizations to postroom_copy;
grant update (count) on usage to postroom_copy;
grant select (lease_until), update (state) on nodes to postroom_copy;
grant select (node), update (node, lease_until) on shards to postroom_copy;
grant delete on sources, source_secrets, endpoints, endpoint_secrets, idempotency_keys, events, attempts, exceptions,
  replays, duplicate_guard, rejections to postroom_copy;
