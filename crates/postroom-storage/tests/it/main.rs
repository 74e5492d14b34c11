//! The conformance suite: what every engine promises at this boundary, written against the traits only.
//!
//! An engine joins with one line at the end of this file.

mod auditing;
mod configuration;
mod copying;
mod dedicated;
mod delivering;
mod embedded;
mod isolation;
mod keeping;
mod moving;
mod on_postgres;
mod people;
mod reading;
mod recording;
mod streaming;
mod support;

/// Runs every test of the suite on one engine.
macro_rules! conformance {
    ($engine:ident, $harness:ty; $($module:ident: [$($test:ident),* $(,)?]),* $(,)?) => {
        mod $engine {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    crate::$module::$test::<$harness>().await;
                })*
            })*
        }
    };
}

/// The names of all tests, once.
macro_rules! suite {
    ($engine:ident, $harness:ty) => {
        conformance! { $engine, $harness;
            recording: [
                an_event_goes_to_every_endpoint_that_wants_it,
                an_external_id_is_recorded_once_within_the_window,
                one_of_many_concurrent_events_with_one_id_is_recorded,
                the_monthly_limit_is_exact_under_concurrency_and_duplicates_are_free,
                the_limit_of_a_plan_is_as_the_server_was_opened_and_an_organization_s_own_stands_before_it,
                the_events_of_one_request_are_recorded_all_or_none,
                what_finds_no_room_in_memory_waits_in_storage,
                a_crash_forgets_nothing_that_was_acknowledged,
            ],
            delivering: [
                an_unsettled_delivery_is_found_again_after_a_restart_and_a_settled_one_is_not,
                a_failed_delivery_waits_for_its_time_until_it_succeeds_or_is_dead,
                a_slow_delivery_gets_a_row_so_that_a_restart_need_not_look_at_everything_since,
                a_delivery_can_be_moved_without_an_attempt,
                an_attempt_that_our_shutdown_broke_off_leaves_the_delivery_to_be_made,
            ],
            moving: [
                a_dead_letter_is_requeued_or_discarded_once,
                only_a_failed_delivery_or_a_dead_letter_can_be_retried,
                nothing_is_sent_again_to_an_endpoint_that_gets_nothing,
                a_replay_is_a_new_run_of_the_same_event,
                a_test_goes_to_one_endpoint_whatever_it_wants_and_does_not_count,
            ],
            reading: [
                pages_go_through_a_list_without_gap_or_double_while_events_come_in,
                a_filter_finds_the_events_it_describes,
                a_delivery_and_its_event_show_where_they_stand,
                attempts_are_shown_first_to_last_with_what_came_back,
                what_belongs_to_another_organization_is_like_what_never_was,
                rejected_requests_are_listed_newest_first_and_shown_whole,
                a_repeated_request_gets_the_answer_of_the_first,
                figures_tell_what_waits_and_what_is_dead,
            ],
            streaming: [
                a_stream_shows_what_happens_in_its_own_organization,
                a_stream_resumes_where_it_was_without_gap_or_double,
                a_reader_that_is_too_slow_is_told_what_it_missed_and_can_go_back_for_it,
            ],
            configuration: [
                an_organization_is_found_by_its_slug_and_changed_as_asked,
                a_mandrill_secret_is_unique_in_the_installation_and_makes_a_source,
                a_key_lets_its_holder_in_until_it_is_revoked_or_expires,
                a_source_is_known_by_its_name_and_verifies_with_every_active_secret,
                an_endpoint_signs_with_both_secrets_until_the_grace_is_over,
                an_endpoint_that_gets_nothing_says_why,
                the_number_of_endpoints_is_bounded,
            ],
            people: [
                somebody_who_is_invited_comes_in_with_the_link_of_the_mail_until_the_session_ends,
                of_twenty_who_come_with_one_link_at_once_one_comes_in,
                a_link_is_made_for_who_may_sign_in_and_not_more_than_five_an_hour,
                a_new_invitation_voids_the_one_before,
                an_address_is_one_persons_in_the_installation,
                an_organization_keeps_an_admin_who_can_sign_in,
                a_session_ends_with_its_time_with_another_role_and_with_being_switched_off,
                the_oldest_session_ends_for_the_twenty_first,
                a_super_admin_is_made_once_and_comes_in_without_an_organization,
                a_super_admin_who_is_switched_off_is_out_at_once_until_switched_on_again,
                people_of_another_organization_are_like_none,
                a_mail_is_taken_once_until_it_is_sent_or_given_up,
            ],
            isolation: [
                no_method_finds_what_belongs_to_another_organization,
                a_rejection_becomes_an_event_of_its_own_organization_only,
                a_source_under_attack_keeps_what_is_within_its_rate,
            ],
            auditing: [
                every_act_leaves_one_entry_and_no_secret,
                entries_are_found_by_what_they_say_and_read_in_pages,
                what_is_of_no_organization_has_a_chain_of_its_own,
                what_is_not_done_leaves_no_entry,
                an_endpoint_that_says_it_is_gone_is_switched_off_by_the_system,
                many_who_write_at_once_make_one_chain,
            ],
            keeping: [
                an_old_event_goes_with_all_that_is_of_it_unless_a_delivery_waits,
                retention_takes_many_events_in_small_steps,
            ],
        }
    };
}

suite!(sqlite, crate::support::Sqlite);
suite!(sqlite_dedicated, crate::support::SqliteDedicated);
suite!(postgres, crate::support::Postgres);
suite!(postgres_dedicated, crate::support::PostgresDedicated);
