//! What every engine must promise, told through the ports alone.
//!
//! An engine joins by handing a function that opens a fresh [`World`](crate::world::World) to
//! [`conformance!`]. A promise that is not listed there is dead code, which the compiler reports.

pub(crate) mod app_events;
pub(crate) mod cancelling;
pub(crate) mod deliveries;
pub(crate) mod endpoints;
pub(crate) mod expiry;
pub(crate) mod inboxes;
pub(crate) mod logs;
pub(crate) mod order;
pub(crate) mod progress;
pub(crate) mod redelivery;
pub(crate) mod registry;
pub(crate) mod reruns;
pub(crate) mod runs;
pub(crate) mod secrets;

macro_rules! conformance {
    ($open:path) => {
        $crate::conformance::promises! { $open, runs {
            an_accepted_run_is_claimed_with_all_it_was_given
            runs_are_claimed_in_the_order_of_their_acceptance
            a_claim_takes_no_more_bytes_than_fit_but_always_one
            every_run_is_claimed_once_however_many_claim
            a_run_can_be_accepted_and_leased_in_one_write
            a_key_stands_for_one_run_as_long_as_that_is_kept
            a_key_belongs_to_a_function_of_an_app
            of_many_runs_with_one_key_one_is_kept
            a_full_queue_turns_runs_down_until_there_is_room
            the_end_of_a_run_is_kept_to_the_byte
            a_large_result_is_kept_to_the_byte
            a_failed_run_says_why
            a_stale_lease_changes_nothing
            a_leased_run_cannot_expire
            a_released_run_is_the_next_to_be_claimed
            the_third_death_of_its_replica_ends_a_run
            being_drained_counts_towards_nothing
            losing_the_server_counts_once_a_replica_had_the_run
            a_lease_that_nobody_took_is_given_back
            a_synchronous_call_leaves_its_record
            runs_are_listed_newest_first_page_by_page
            the_list_can_be_narrowed
            the_list_can_be_searched
            the_list_of_a_state_has_all_of_its_runs_and_no_others
            a_run_is_shown_to_its_own_project_only
            a_body_that_is_not_large_is_kept_with_its_run
            waiting_for_an_end_ends_with_it
            waiting_for_an_end_is_bounded
            the_backlog_is_what_is_queued
        }}
        $crate::conformance::promises! { $open, cancelling {
            a_queued_run_ends_at_once_and_its_webhook_is_told
            a_cancelled_run_that_comes_back_is_not_executed_again
            a_run_that_finishes_before_it_lets_go_has_finished
            nobody_cancels_runs_of_others
            whoever_wins_a_race_there_is_one_end_that_everybody_is_told
        }}
        $crate::conformance::promises! { $open, expiry {
            a_run_that_never_started_expires_and_its_webhook_is_told
            a_leased_run_past_its_time_is_named_and_expires_when_it_comes_back
            a_run_that_has_started_once_does_not_expire
            the_time_of_a_run_that_has_ended_means_nothing
        }}
        $crate::conformance::promises! { $open, order {
            higher_priorities_are_claimed_first_and_the_oldest_among_equals
            a_released_run_keeps_its_priority
            a_delayed_run_waits_for_its_time
            a_delayed_run_is_never_leased_at_once
            delayed_runs_count_in_the_bound_of_the_queue
            a_delayed_run_can_be_cancelled_and_can_expire
            however_many_become_due_all_are_ready
        }}
        $crate::conformance::promises! { $open, reruns {
            a_failed_attempt_is_kept_with_its_error_and_the_run_waits
            pauses_grow_with_each_failure
            a_run_between_two_attempts_can_be_cancelled
            a_stale_attempt_cannot_have_its_run_executed_again
            failures_and_deaths_are_counted_apart
            a_run_is_executed_no_more_often_than_it_may
            what_was_never_handed_over_is_no_attempt_that_counts
            retries_stay_within_the_attempts_that_a_run_may_have
        }}
        $crate::conformance::promises! { $open, deliveries {
            the_first_attempt_rides_in_the_finish
            a_delivery_without_an_attempt_is_due_at_once
            the_body_is_the_same_on_every_attempt
            the_callers_secret_goes_with_every_attempt
            headers_and_metadata_go_with_every_attempt
            endpoints_that_are_not_told_of_outcomes_get_none
            a_failed_run_is_told_as_well
            an_attempt_that_failed_is_made_again_when_it_is_due
            what_could_not_be_sent_takes_no_step_of_the_schedule
            a_used_up_schedule_ends_a_delivery
            the_room_is_respected
            receivers_take_turns
            the_oldest_delivery_of_a_receiver_goes_first
            the_next_due_time_looks_at_receivers_with_room
            the_next_due_time_knows_of_attempts_that_just_ended
            a_gone_endpoint_gets_nothing_more
            a_gone_endpoint_of_another_project_is_another_endpoint
            a_retry_to_an_endpoint_gone_meanwhile_waits
            an_end_of_an_attempt_that_is_over_changes_nothing
            attempts_that_nobody_took_are_made_again
            a_first_attempt_that_nobody_took_is_made_again
        }}
        $crate::conformance::promises! { $open, progress {
            what_a_run_tells_is_a_delivery_for_each_endpoint
            an_event_is_not_due_before_its_time
            a_stale_attempt_tells_nothing
            an_endpoint_that_does_not_keep_up_is_told_less
            an_outcome_goes_before_what_was_told_on_the_way
            what_is_told_on_the_way_waits_for_no_disabled_endpoint
        }}
        $crate::conformance::promises! { $open, redelivery {
            a_delivery_is_shown_to_its_own_project_only
            deliveries_are_listed_newest_first_page_by_page
            the_list_of_deliveries_can_be_narrowed
            a_redelivery_has_the_same_id_and_body_and_a_schedule_of_its_own
            a_delivery_that_waits_is_brought_forward
            what_cannot_be_redelivered_is_left_alone
            all_that_failed_since_a_time_is_redelivered
            however_many_failed_all_are_redelivered
        }}
        $crate::conformance::promises! { $open, endpoints {
            an_endpoint_shows_every_change
            enabling_replays_what_waits
            enabling_what_is_enabled_changes_nothing_and_says_so
            an_endpoint_is_enabled_by_its_own_project_only
            an_endpoint_is_disabled_as_asked_and_what_is_due_there_waits
            how_an_endpoint_does_is_counted_from_its_attempts
            an_endpoint_that_takes_nothing_for_a_whole_schedule_is_disabled
            what_is_pending_and_under_way_waits_with_its_endpoint
            one_success_within_the_schedule_keeps_an_endpoint
            a_delivery_given_up_early_says_nothing_about_its_endpoint
            an_endpoint_fails_by_a_schedule_of_a_runs_own_that_is_long_and_not_by_a_short_one
        }}
        $crate::conformance::promises! { $open, registry {
            a_project_is_made_once
            a_named_key_opens_until_it_is_revoked_or_expires
            a_project_keeps_so_many_named_keys_and_says_so
            a_replaced_secret_signs_until_its_overlap_is_over
            asymmetric_signing_is_switched_on_with_one_key_that_stays
            keys_open_what_they_should_until_they_are_rotated
            a_build_becomes_live_with_its_functions
            a_newer_build_cancels_an_unfinished_one
            a_final_build_does_not_move
            a_failed_build_leaves_the_old_one_live
            scaling_changes_the_live_configuration
            apps_are_listed_by_project_and_name
            deleting_an_app_cancels_its_queued_runs_and_tells_their_webhooks
            a_run_released_after_its_app_was_deleted_is_cancelled
            a_run_accepted_after_its_app_was_deleted_is_cancelled
            a_deleted_app_can_come_back
            unfinished_builds_are_found
            a_build_of_nobody_is_refused
        }}
        $crate::conformance::promises! { $open, secrets {
            an_app_sees_its_projects_secrets_and_its_own_over_them
            the_secrets_of_a_deleted_app_are_gone
            there_are_no_more_secrets_than_there_may_be
        }}
        $crate::conformance::promises! { $open, app_events {
            events_are_read_as_they_were_noted
            the_oldest_events_make_room
            events_go_with_their_app
        }}
        $crate::conformance::promises! { $open, inboxes {
            an_inbox_is_there_at_once
            a_project_has_as_many_inboxes_as_it_may
            requests_are_kept_to_the_byte_and_in_order
            the_oldest_requests_make_room
            requests_are_read_backwards_as_far_as_they_fit
            an_unknown_inbox_records_nothing
            the_oldest_requests_make_room_for_bytes
            what_is_set_of_an_inbox_is_found_again
            each_request_takes_the_next_step_of_a_script
            an_inbox_ends_when_it_was_to_or_at_once
        }}
        $crate::conformance::promises! { $open, logs {
            what_was_appended_is_read
            lines_are_found_by_run_build_and_app
            lines_are_read_page_by_page
            the_newest_lines_can_be_asked_for
        }}
    };
}

macro_rules! promises {
    ($open:path, $port:ident { $($promise:ident)* }) => {
        mod $port {
            $(
                #[tokio::test]
                async fn $promise() {
                    $crate::conformance::$port::$promise($open()).await;
                }
            )*
        }
    };
}

pub(crate) use {conformance, promises};
