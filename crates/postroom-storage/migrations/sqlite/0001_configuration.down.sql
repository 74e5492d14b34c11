-- Takes everything with it: only for an installation that is given up.
drop table idempotency;
drop table audit;
drop table endpoint_secret;
drop table endpoint;
drop table source_secret;
drop table source;
drop table api_key;
drop table organization;
drop table revision;
drop table meta;
