-- Endpoints at which something waits that was not written by the node that delivers it: that node looks there at once, and
-- does not wait for its walk. A row is no more than a hint and may be lost, so it is written after what it is about.
create table pokes (
  endpoint bigint primary key
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

grant select on pokes to postroom_authorizer; -- whose look for changes sees that there are some
grant select, insert, delete on pokes to postroom_worker;
