grant update (disabled_reason, disabled_at, version, updated_at) on endpoints to postroom_worker;
