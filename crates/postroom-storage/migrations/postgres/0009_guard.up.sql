-- Old rows of the guard are found by walking over its pages: whoever records an event keeps one index less. A program of
-- the version before works without it, and reads the whole table where it had the index.
drop index duplicate_guard_by_event;
