-- Takes every event with it: only for an installation that is given up.
drop table rejection;
drop table usage;
drop table progress;
drop table duplicate_guard;
drop table delivery_by_endpoint;
drop table event_by_type;
drop table event_by_org;
drop table replay;
drop table exception;
drop table attempt;
drop table event;
