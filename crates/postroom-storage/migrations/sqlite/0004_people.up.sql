-- People and how they sign in. Who is who is kept in the database that all share: in one of a single organization these
-- tables are empty.
create table user (
  usr           integer primary key,
  org           integer not null,          -- 0: a super admin, of no organization
  id            blob    not null unique check (length(id) = 16),
  email         text    not null,
  email_key     text    not null unique,   -- in lower case
  role          text    not null check (role in ('member', 'admin', 'super_admin')),
  is_active     integer not null,
  invited_until integer,                   -- null once the invitation was accepted
  last_login_at integer,
  created_at    integer not null,
  updated_at    integer not null,
  created_by    text    not null,
  unique (org, usr),
  check ((role = 'super_admin') = (org = 0))
) strict;

-- Links that were made, as hashes. One that is void is marked as used: it still counts for how many were made.
create table sign_in_token (
  hash       blob    primary key check (length(hash) = 32),
  org        integer not null,
  usr        integer not null,
  purpose    text    not null check (purpose in ('sign_in', 'invitation')),
  created_at integer not null,
  expires_at integer not null,
  used_at    integer,
  foreign key (org, usr) references user (org, usr)
) strict, without rowid;
create index sign_in_token_by_user on sign_in_token (usr, created_at);
create index sign_in_token_by_end on sign_in_token (expires_at);

create table session (
  id         blob    primary key check (length(id) = 16),
  org        integer not null,
  usr        integer not null,
  created_at integer not null,
  expires_at integer not null,
  ended_at   integer,
  address    text,
  user_agent text    not null,
  foreign key (org, usr) references user (org, usr)
) strict, without rowid;
create index session_by_user on session (org, usr, created_at);
create index session_by_end on session (expires_at);

-- Mails that wait to be sent. Whoever takes one moves due_at on, so that nobody else sends it meanwhile.
create table mail (
  mail       integer primary key,
  org        integer not null,
  usr        integer not null,
  id         blob    not null unique check (length(id) = 16), -- binds the ciphertext to its row
  purpose    text    not null check (purpose in ('sign_in', 'invitation')),
  token      blob    not null,             -- what the link carries, sealed
  expires_at integer not null,             -- as the link
  due_at     integer not null,
  tries      integer not null default 0,
  created_at integer not null,
  foreign key (org, usr) references user (org, usr)
) strict;
create index mail_due on mail (due_at);
create index mail_by_user on mail (usr);
create index mail_by_end on mail (expires_at);
