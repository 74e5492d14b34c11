create index duplicate_guard_by_event on duplicate_guard (event);
