-- People and how they sign in: who is who, so these tables are empty in the database of a single organization. The part
-- that proves callers lets people in; it writes links that go out by mail, and cannot read one.
create table users (
  org           bigint      not null,      -- 0: a super admin, of no organization
  usr           bigint      generated always as identity,
  id            uuid        not null,
  email         text        not null,
  email_key     text        not null constraint users_email_key unique, -- in lower case
  role          text        not null check (role in ('member', 'admin', 'super_admin')),
  is_active     boolean     not null,
  invited_until timestamptz,               -- null once the invitation was accepted
  last_login_at timestamptz,
  created_at    timestamptz not null,
  updated_at    timestamptz not null,
  created_by    text        not null,
  primary key (org, usr),
  unique (org, id),
  check ((role = 'super_admin') = (org = 0))
);

-- Links that were made, as hashes. One that is void is marked as used: it still counts for how many were made.
create table sign_in_tokens (
  hash       bytea       primary key check (length(hash) = 32),
  org        bigint      not null,
  usr        bigint      not null,
  purpose    text        not null check (purpose in ('sign_in', 'invitation')),
  created_at timestamptz not null,
  expires_at timestamptz not null,
  used_at    timestamptz,
  foreign key (org, usr) references users (org, usr)
);
create index sign_in_tokens_by_user on sign_in_tokens (org, usr, created_at);
create index sign_in_tokens_by_end on sign_in_tokens (expires_at);

create table sessions (
  id         uuid        primary key,
  org        bigint      not null,
  usr        bigint      not null,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  ended_at   timestamptz,
  address    text,
  user_agent text        not null,
  foreign key (org, usr) references users (org, usr)
);
create index sessions_by_user on sessions (org, usr, created_at);
create index sessions_by_end on sessions (expires_at);

-- Mails that wait to be sent. Whoever takes one moves due_at on, so that nobody else sends it meanwhile.
create table mails (
  org        bigint      not null,
  mail       bigint      generated always as identity,
  usr        bigint      not null,
  id         uuid        not null unique,  -- binds the ciphertext to its row
  purpose    text        not null check (purpose in ('sign_in', 'invitation')),
  token      bytea       not null,         -- what the link carries, sealed
  expires_at timestamptz not null,         -- as the link
  due_at     timestamptz not null,
  tries      integer     not null default 0,
  created_at timestamptz not null,
  primary key (org, mail),
  foreign key (org, usr) references users (org, usr)
);
create index mails_due on mails (due_at);
create index mails_by_user on mails (org, usr);
create index mails_by_end on mails (expires_at);

-- What every node has in memory of people are their sessions. One that is deleted had ended by itself.
create trigger revise after update of role, is_active on users for each row execute function revise();
create trigger revise after insert or update of ended_at on sessions for each row execute function revise();

do $$
declare
  owned text;
  part  text;
  mine  text := '(org = (select nullif(current_setting(''app.current_organization_id'', true), '''')::bigint))';
begin
  foreach owned in array array['users', 'sign_in_tokens', 'sessions', 'mails'] loop
    execute format('alter table %I enable row level security, force row level security', owned);
    execute format('create policy of_one_organization on %I to postroom_api, postroom_dead_letter using %s with check %s',
                   owned, mine, mine);
    foreach part in array array['postroom_authorizer', 'postroom_platform', 'postroom_copy'] loop
      execute format('create policy %I on %I to %I using (true) with check (true)', 'of_all_for_' || part, owned, part);
    end loop;
    execute format('grant select, insert on %I to postroom_copy', owned);
  end loop;
end
$$;
create policy of_all_for_postroom_keys on mails to postroom_keys using (true) with check (true);

grant select (org, usr, id, email, email_key, role, is_active, invited_until), update (invited_until, last_login_at)
  on users to postroom_authorizer;
grant select, insert, update (used_at) on sign_in_tokens to postroom_authorizer;
grant select (id, org, usr, created_at, expires_at, ended_at), insert, update (ended_at) on sessions to postroom_authorizer;
grant insert on mails to postroom_authorizer;
grant insert, update (tx) on revisions to postroom_authorizer;

grant select (org, usr, id, email, role, is_active, invited_until, last_login_at, created_at, updated_at, created_by), insert,
  update (role, is_active, invited_until, updated_at) on users to postroom_api;
grant select (org, usr, created_at, used_at), insert, update (used_at) on sign_in_tokens to postroom_api;
grant select (org, usr, expires_at, ended_at), update (ended_at) on sessions to postroom_api;
grant select (org, usr), insert, delete on mails to postroom_api;

grant select (org, usr, id, email, email_key, role, is_active, last_login_at, created_at, updated_at, created_by), insert,
  update (is_active, updated_at) on users to postroom_platform;
grant select (hash, org, usr, expires_at, used_at), insert, update (used_at), delete on sign_in_tokens to postroom_platform;
grant select (id, org, usr, expires_at, ended_at), update (ended_at), delete on sessions to postroom_platform;
grant select, update (due_at, tries), delete on mails to postroom_platform;

grant select (org, mail, id, token), update (token) on mails to postroom_keys;
