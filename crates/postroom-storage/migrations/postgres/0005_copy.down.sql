-- The role stays: other databases of the server may use it.
do $$
declare
  policy record;
begin
  for policy in select policyname, tablename from pg_policies
      where schemaname = 'public' and policyname = 'of_all_for_postroom_copy' loop
    execute format('drop policy %I on %I', policy.policyname, policy.tablename);
  end loop;
end
$$;
revoke all on all tables in schema public from postroom_copy;
revoke all on all functions in schema public from postroom_copy;
revoke all on schema public from postroom_copy;
