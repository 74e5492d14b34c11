-- An endpoint that answers 410 is switched off as configuration, by the role of the API, with its entry in the audit log:
-- the worker's right to do that was never used.
revoke update (disabled_reason, disabled_at, version, updated_at) on endpoints from postroom_worker;
