-- Takes every event with it: only for an installation that is given up.
drop function drop_partition(date), make_partition(date);
drop table rejections, usage, duplicate_guard, replays, exceptions, attempts, events, shards, nodes;
drop function day_floor(date);
