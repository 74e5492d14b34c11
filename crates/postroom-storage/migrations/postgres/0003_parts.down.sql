-- The roles stay: other databases of the server may use them.
do $$
declare
  policy record;
begin
  for policy in select policyname, tablename from pg_policies where schemaname = 'public' loop
    execute format('drop policy %I on %I', policy.policyname, policy.tablename);
    execute format('alter table %I no force row level security, disable row level security', policy.tablename);
  end loop;
end
$$;
revoke all on all tables in schema public from postroom_authorizer, postroom_receiver, postroom_worker, postroom_api,
  postroom_dead_letter, postroom_platform, postroom_keys;
revoke all on all functions in schema public from postroom_authorizer, postroom_receiver, postroom_worker, postroom_api,
  postroom_dead_letter, postroom_platform, postroom_keys;
revoke all on schema public from postroom_authorizer, postroom_receiver, postroom_worker, postroom_api,
  postroom_dead_letter, postroom_platform, postroom_keys;
grant execute on function revise(), revise_tenant(), day_floor(date) to public;
