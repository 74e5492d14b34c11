//! The server from outside: real sockets, the real router, a real database of its own, on both engines.
//!
//! A test is a function of the engine and stands in the list at the end of this file, once.

mod access;
mod audit;
mod bad_api;
mod bad_ingest;
mod connections;
mod dedicated;
mod deliveries;
mod foreign;
mod http2;
mod idempotency;
mod ingest;
mod lists;
mod logs;
mod pages;
mod people;
mod providers;
mod rates;
mod rejections;
mod resources;
mod sign_in;
mod stream;
mod support;

/// Runs every test on one engine.
macro_rules! on {
    ($module:ident, $engine:expr; $($tests:ident: [$($test:ident),* $(,)?]),* $(,)?) => {
        mod $module {
            $(mod $tests {
                $(#[tokio::test]
                async fn $test() {
                    crate::$tests::$test($engine).await;
                })*
            })*
        }
    };
}

/// The names of all tests, once.
macro_rules! suite {
    ($module:ident, $engine:expr) => {
        on! { $module, $engine;
            access: [
                every_route_lets_through_exactly_who_may_use_it,
                a_401_says_how_to_prove_oneself,
                a_credential_counts_only_in_its_one_place,
                only_a_super_admin_names_another_organization,
                keys_of_an_organization_that_is_switched_off_are_refused_at_once,
            ],
            audit: [
                every_route_that_writes_leaves_an_entry,
                a_view_of_a_secret_and_refusals_are_in_the_log,
                a_super_admin_who_names_no_organization_that_exists_is_known_in_the_log,
                the_log_is_read_by_admins_of_its_organization_in_pages,
            ],
            bad_api: [
                bodies_that_are_not_one_json_object,
                event_types_ids_and_data,
                urls_of_endpoints,
                settings_of_endpoints,
                patches_that_say_nothing_or_too_much,
                names_slugs_plans_and_limits_of_organizations,
                scopes_and_times_of_keys,
                secrets_of_sources,
                ids_in_paths_that_are_no_ids,
                actions_that_take_nothing_take_nothing,
            ],
            bad_ingest: [
                any_body_is_kept_as_it_arrived,
                lengths_that_lie_are_refused_or_cut_where_they_end,
                a_client_that_leaves_after_its_body_has_still_sent_it,
                odd_ids_and_types_of_senders_are_made_to_fit,
                odd_headers_and_urls_do_no_harm,
                signed_times_that_are_no_times_are_refused,
                signatures_that_are_no_signatures_are_refused,
                a_flood_of_bad_requests_is_kept_within_bounds_and_always_answered,
            ],
            connections: [
                a_connection_that_says_nothing_is_closed,
                headers_that_trickle_are_cut_off,
                a_body_that_does_not_arrive_is_408_and_the_connection_ends,
                a_connection_serves_many_requests_and_is_closed_when_it_is_idle,
                a_client_that_does_not_read_its_answers_is_cut_off,
                connections_are_bounded_and_a_place_is_given_back,
                bodies_in_sum_are_bounded,
                what_the_parser_refuses_is_a_4xx_and_the_connection_ends,
                a_client_whose_body_is_not_read_gets_its_answer_and_no_reset,
                a_client_that_does_not_close_is_not_waited_for,
                a_smuggled_request_is_not_served,
                stopping_lets_requests_under_way_end_and_closes_idle_connections,
                what_does_not_end_is_closed_when_the_time_to_stop_is_over,
                damaged_requests_are_never_a_5xx_and_never_hang,
            ],
            deliveries: [
                a_delivery_is_shown_with_its_attempts,
                a_failed_delivery_waits_and_is_tried_at_once_when_a_person_asks,
                a_dead_letter_is_requeued_or_discarded,
                a_replay_makes_new_deliveries_of_an_old_event,
                events_and_replays_name_the_key_or_person_that_made_them,
            ],
            foreign: [
                every_route_answers_anothers_id_like_one_that_never_was,
                anothers_ids_in_bodies_and_filters_are_like_ones_that_never_were,
                a_cursor_of_another_organization_is_no_cursor,
                naming_another_organization_in_a_header_is_like_naming_one_that_never_was,
                a_key_of_idempotency_is_its_organizations_own,
            ],
            http2: [
                many_requests_share_one_connection,
                headers_and_bodies_over_the_limit_are_refused_there_too,
            ],
            idempotency: [
                the_same_key_and_request_get_the_stored_answer_and_make_nothing_twice,
                a_key_is_good_for_one_request_of_one_organization,
                a_request_that_was_refused_may_be_sent_again,
                of_many_at_the_same_time_one_works_and_the_others_wait_or_get_its_answer,
                super_admins_have_keys_of_their_own_outside_of_every_organization,
                a_key_that_cannot_be_one_is_refused,
                a_batch_in_which_something_was_refused_is_not_stored,
            ],
            ingest: [
                a_verified_webhook_is_kept_once_and_its_repetition_is_answered_with_the_same_id,
                what_is_not_proved_is_refused_with_the_reason,
                an_unknown_organization_and_an_unknown_source_are_answered_alike,
                what_is_switched_off_answers_403_with_the_contracts_words,
                a_body_or_headers_over_the_limit_are_refused_and_nothing_is_kept,
                a_provider_gets_the_handshake_it_expects_and_nothing_is_recorded,
                a_signed_time_outside_the_tolerance_is_refused,
                the_url_that_a_provider_signs_is_the_public_one_unless_the_source_says_otherwise,
                the_monthly_limit_is_exact_and_says_when_to_come_back,
                other_methods_are_refused_with_those_that_are_allowed,
            ],
            lists: [
                pages_are_newest_first_without_gaps_and_end_with_null,
                a_limit_outside_of_1_to_250_is_refused,
                a_cursor_is_good_only_where_it_came_from,
                unknown_repeated_and_meaningless_parameters_are_refused,
                organizations_are_listed_for_super_admins,
            ],
            logs: [
                a_request_has_one_span_with_who_what_and_how_it_ended,
                no_secret_payload_or_query_is_ever_logged,
                what_comes_from_outside_can_not_forge_a_line,
                a_refusal_is_logged_with_its_likely_cause,
            ],
            pages: [
                every_problem_has_its_page,
                pages_need_nothing_from_elsewhere_and_run_no_scripts,
                the_document_is_served_as_it_is_committed,
                a_server_is_live_and_ready_until_it_stops,
                storage_that_does_not_answer_is_503_with_a_time_to_come_back,
                a_request_id_is_taken_if_it_is_harmless_and_made_if_not,
                every_route_answers_options_head_and_wrong_methods_sanely,
                whatever_is_accepted_the_answer_is_json,
                a_process_serves_only_the_parts_it_has,
                a_panic_in_a_handler_is_500_and_hurts_nobody_else,
                metrics_count_requests_by_route_and_never_by_caller,
            ],
            people: [
                a_person_is_invited_signs_in_changes_and_is_switched_off,
                a_second_invitation_voids_the_first_and_an_old_one_is_void_by_itself,
                an_address_belongs_to_one_person_in_capitals_or_not,
                the_last_admin_stays_an_admin_even_when_two_take_each_other_away_at_once,
                what_is_said_of_people_is_checked,
            ],
            providers: [
                the_events_of_one_request_are_all_kept_and_recognised_one_by_one,
                a_source_of_asana_learns_its_secret_once,
                a_certificate_is_fetched_once_and_a_subscription_is_visited,
                while_a_key_can_not_be_had_the_provider_is_told_to_come_again,
                paypal_is_asked_about_each_request_of_a_source_that_chose_so,
            ],
            rates: [
                an_organization_that_asks_too_often_waits_and_hurts_nobody_else,
                the_document_names_the_headers_of_limits_where_they_are_sent,
                who_guesses_credentials_is_stopped_and_who_has_one_is_not,
            ],
            rejections: [
                the_owner_of_a_rejection_sees_why_and_its_sender_only_the_code,
                all_that_verify_now_become_events_in_order_of_arrival,
                a_request_without_an_id_becomes_one_event_however_often_it_is_verified_at_once,
                what_to_verify_again_is_checked,
            ],
            resources: [
                a_payload_can_be_had_as_its_exact_bytes,
                a_provider_has_a_guide_and_an_unknown_one_is_404,
                an_event_is_accepted_and_its_repetition_recognised,
                an_events_payload_has_the_bytes_of_data_as_they_were_sent,
                a_batch_has_one_result_for_each_event_in_order,
                a_tenant_is_everything_a_new_customer_needs,
                a_mandrill_secret_belongs_to_one_organization_and_never_comes_back,
                an_admin_key_changes_the_name_of_its_organization_and_nothing_else,
                put_replaces_an_organization_but_keeps_the_secret_that_cannot_be_read,
                one_source_of_a_name_and_the_provider_is_the_default_name,
                a_sources_secrets_rotate_with_grace_and_are_replaced_without,
                an_endpoints_secret_is_shown_when_it_is_made_and_to_admin_keys_who_ask,
                an_ed25519_endpoint_shows_its_public_key_only,
                a_change_of_an_endpoint_leaves_out_what_stays_and_takes_null_for_the_default,
                an_endpoint_is_switched_off_and_on_and_can_be_tested,
                an_api_key_is_shown_once_and_ends_when_it_is_revoked,
                a_rejected_request_is_kept_and_becomes_an_event_when_the_secret_is_mended,
                changes_of_one_endpoint_at_the_same_time_are_all_kept,
                a_change_of_what_the_caller_has_not_seen_is_refused_if_he_says_so,
            ],
            sign_in: [
                opening_a_link_uses_nothing_up_and_sets_no_cookie,
                of_twenty_who_use_a_link_at_once_one_gets_a_session,
                a_link_is_good_for_fifteen_minutes_and_every_bad_one_is_answered_alike,
                known_and_unknown_addresses_get_one_answer_that_waits_for_nothing,
                who_may_not_sign_in_is_sent_nothing,
                one_address_is_sent_five_links_an_hour_and_the_rest_look_the_same,
                one_client_has_twenty_requests_an_hour_and_the_rest_look_the_same,
                headers_of_the_caller_decide_no_name_of_this_server,
                what_is_not_one_address_is_refused_and_sent_nothing,
                a_session_goes_to_who_pressed_the_button_and_no_other_site_presses_it,
                signing_in_leads_nowhere_else,
                a_link_and_a_session_stand_in_no_log_no_referrer_and_no_cache,
                a_token_of_any_other_make_is_401,
                a_good_signature_over_wrong_claims_is_401_and_nothing_is_believed_from_a_claim,
                a_session_ends_everywhere_with_logout_another_role_and_removal,
                a_logout_ends_one_session_and_takes_no_other_credential,
                the_cookie_is_kept_from_scripts_from_plain_http_and_from_neighbours,
                a_cookie_changes_something_only_from_a_page_of_this_server,
                no_answer_lets_another_site_read_it,
                people_of_an_organization_that_is_switched_off_are_answered_like_its_keys,
                a_database_holds_no_link_and_no_session_in_the_clear,
                a_super_admin_enters_an_organization_by_naming_it_and_sees_no_secret,
            ],
            stream: [
                events_deliveries_and_attempts_are_shown_as_they_happen_and_to_their_owner_only,
                a_stream_shows_only_what_was_asked_for,
                a_stream_resumes_after_the_last_thing_it_showed,
                a_quiet_stream_says_that_it_is_alive_and_ends_when_the_server_stops,
                a_stream_ends_when_its_key_is_revoked,
                a_stream_ends_when_its_session_ends,
                streams_of_one_organization_are_bounded,
            ],
        }
    };
}

suite!(embedded, crate::support::Engine::Embedded);
suite!(embedded_dedicated, crate::support::Engine::EmbeddedDedicated);
suite!(postgres, crate::support::Engine::Postgres);
suite!(postgres_dedicated, crate::support::Engine::PostgresDedicated);
