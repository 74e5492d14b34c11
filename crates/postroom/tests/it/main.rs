//! Drives the built binary from outside: arguments, files, signals, HTTP; on both engines what is of both.
//!
//! Tests run in parallel, on free ports and in temporary directories, and wait for conditions with a deadline.

mod audit;
mod bench;
mod canary;
mod cli;
mod config;
mod copy;
mod data;
mod demo;
mod kills;
mod listen;
mod on_postgres;
mod people;
mod readme;
mod sdks;
mod serve;
mod support;
mod tenants;
mod tidy;

/// Runs every test that is of both engines on one.
macro_rules! on {
    ($module:ident, $engine:expr; $($tests:ident: [$($test:ident),* $(,)?]),* $(,)?) => {
        mod $module {
            $(mod $tests {
                $(#[test]
                fn $test() {
                    crate::$tests::$test($engine);
                })*
            })*
        }
    };
}

/// The names of all tests that are of both engines, once.
macro_rules! suite {
    ($module:ident, $engine:expr) => {
        on! { $module, $engine;
            serve: [
                a_signed_webhook_arrives_byte_for_byte_and_signed_for_its_endpoint,
                a_failing_endpoint_is_tried_again_and_its_dead_letter_can_be_requeued_by_command,
                an_accepted_event_survives_a_kill_before_its_delivery,
                on_sigterm_an_attempt_under_way_ends_and_the_exit_code_is_0,
                a_second_signal_ends_it_at_once,
                the_limits_of_plans_are_settings_and_an_organization_s_own_stands_before_them,
                health_and_metrics_are_there_and_the_log_is_json_without_secrets,
                an_idle_server_is_small_and_uses_no_processor,
            ],
            data: [
                seed_makes_everything_once,
                an_api_key_made_beside_a_running_server_works_at_once,
                an_api_key_for_nobody_is_refused,
            ],
            people: [
                people_are_invited_sign_in_and_are_switched_off_by_command,
                a_super_admin_is_made_beside_a_running_server_and_runs_organizations_by_command,
                a_super_admin_is_listed_and_switched_off_and_on_beside_a_running_server,
                api_keys_are_listed_and_revoked_by_command,
            ],
            kills: [
                killed_at_any_step_of_a_rotation_everything_opens_and_the_next_one_ends,
            ],
            audit: [
                entries_are_listed_and_one_that_its_owner_changed_is_found,
            ],
            bench: [
                killed_again_and_again_under_load_it_loses_invents_and_alters_nothing,
                bench_beside_the_bare_gateway_prints_every_figure,
                bench_sends_the_organizations_own_events_too,
                bench_measures_a_server_that_runs_already_and_takes_its_things_away_again,
            ],
            cli: [
                a_reader_that_goes_away_is_no_panic,
                data_comes_from_files_pipes_and_arguments_and_everything_else_is_refused,
                tail_follows_live_and_ends_with_ctrl_c,
                many_events_are_sent_at_a_rate_and_added_up,
                sample_webhooks_are_sent_signed_and_a_wrong_secret_is_told,
            ],
            listen: [
                listen_hands_over_what_arrived_so_that_it_verifies_there_and_replays_the_last,
                listen_survives_restarts_of_the_server_without_a_gap_and_without_doubles,
                listen_says_what_does_not_work_and_goes_on,
                rejected_requests_are_explained_and_verified_again_by_command,
            ],
            readme: [
                the_readme_s_requests_make_an_organization_receive_and_send,
            ],
        }
    };
}

suite!(embedded, crate::support::Engine::Embedded);
suite!(postgres, crate::support::Engine::Postgres);
