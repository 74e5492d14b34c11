-- Takes everything with it: only for an installation that is given up.
drop table revisions, idempotency_keys, audit_logs, endpoint_secrets, endpoints, source_secrets, sources, api_keys,
  tenants, organizations, meta;
drop function revise(), revise_tenant();
