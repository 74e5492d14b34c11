revoke delete on sources, source_secrets, endpoints, endpoint_secrets, idempotency_keys, events, attempts, exceptions,
  replays, duplicate_guard, rejections from postroom_copy;
revoke select (node), update (node, lease_until) on shards from postroom_copy;
revoke select (lease_until), update (state) on nodes from postroom_copy;
revoke update (count) on usage from postroom_copy;
revoke update (endpoint_number) on organizations from postroom_copy;
revoke all on tenants from postroom_copy;
drop policy of_all_for_postroom_copy on tenants;
