-- What `postroom copy` may do, as a role that the owning login becomes: it sees every organization, and adds rows to a
-- database that is empty. It changes and deletes nothing but the note of how far it has come, which stands in meta.
do $$
declare
  owned text;
begin
  foreach owned in array array['organizations', 'api_keys', 'sources', 'source_secrets', 'endpoints', 'endpoint_secrets',
      'audit_logs', 'idempotency_keys', 'events', 'attempts', 'exceptions', 'replays', 'duplicate_guard', 'usage',
      'rejections'] loop
    execute format('create policy of_all_for_postroom_copy on %I to postroom_copy using (true) with check (true)', owned);
    execute format('grant select, insert on %I to postroom_copy', owned);
  end loop;
end
$$;
create policy of_all_for_postroom_copy on revisions to postroom_copy using (true) with check (true);
grant usage on schema public to postroom_copy;
grant select, insert, update (tx) on revisions to postroom_copy;
grant select, insert, update (value), delete on meta to postroom_copy;
grant select (node, watermark, counted, state) on nodes to postroom_copy;
grant execute on function make_partition(date) to postroom_copy;
