//! What people see of a gitspace that does not run: how its start goes, what failed, who can start it.
//!
//! Not here: the texts of other refusals (`rejection::catalogue`), the look (`page`).

use std::{fmt::Write, time::SystemTime};

use super::{
    buttons::Buttons,
    progress::{Progress, Stage},
};
use crate::{
    api::{route::RouteState, wake::Wakers},
    gateway::{
        page::{Icon, Page, Row, Support, span, steps},
        rejection::Rejection,
        route::Entry,
    },
};

/// Without script a page that shows a start comes again after so many seconds.
const SHOWS_AGAIN: u8 = 3;
/// And one that waits for somebody to start it.
const ASKS_AGAIN: u8 = 10;

/// How a start goes, in the words of the page and of its title, and the steps as they stand in it.
pub(super) struct Shown {
    pub(super) says: String,
    pub(super) title: String,
    pub(super) html: String,
}

impl Shown {
    pub(super) fn of(progress: &Progress, entry: &Entry, now: SystemTime) -> Self {
        let says = match progress.now() {
            Some(words) => format!("{words} …"),
            None => "Waiting for the next step …".to_owned(),
        };
        Self {
            title: format!("{says} {}", entry.gitspace),
            says,
            html: markup(progress, now),
        }
    }
}

/// It is on its way up.
pub(super) fn starting(
    entry: &Entry,
    progress: &Progress,
    buttons: &Buttons,
    now: SystemTime,
) -> Page {
    let shown = Shown::of(progress, entry, now);
    let mut then = "What you wanted to see opens here by itself.".to_owned();
    if let Some(usual) = progress.usual() {
        // Writing to a String cannot fail.
        let _ = write!(then, " A start usually takes {}.", span(usual));
    }
    Page::new(&format!("Starting {}", entry.gitspace))
        .marked(Icon::Gitspace, "It is on its way up.", &then)
        .progress(&shown.says, &shown.html)
        .aside(&buttons.cancel, "Cancel the start")
        .waits(Rejection::Starting.reason(), Some(SHOWS_AGAIN), true)
}

/// It can be started by a button. `why`: the last try was refused, or nobody could be asked.
pub(super) fn stopped(entry: &Entry, buttons: &Buttons, why: Option<&str>) -> Page {
    let (title, first, then) = match entry.state {
        RouteState::Stopping => (
            format!("{} is being stopped", entry.gitspace),
            "Everything in it is kept.",
            "Once it has stopped it can be started.",
        ),
        _ => (
            format!("{} is stopped", entry.gitspace),
            "Everything in it is kept.",
            "Once it is started, what you wanted to see opens here by itself.",
        ),
    };
    let mut page = Page::new(&title).marked(Icon::Gitspace, first, then);
    if let Some(why) = why {
        page = page.text(why);
    }
    page.form(&buttons.start, &[], "Start it").waits(
        Rejection::Stopped.reason(),
        Some(ASKS_AGAIN),
        false,
    )
}

/// Its start failed.
pub(super) fn failed(
    entry: &Entry,
    progress: &Progress,
    buttons: &Buttons,
    now: SystemTime,
) -> Page {
    let why = progress.failure.as_deref();
    let why = why.unwrap_or("The control plane does not say why.");
    Page::new(&format!("{} did not start", entry.gitspace))
        .marked(Icon::Gitspace, "A step failed:", why)
        .steps(&markup(progress, now))
        .form(&buttons.start, &[], "Try again")
        .support(for_support(entry, progress, now))
        // Whoever reads what failed is not disturbed.
        .waits(Rejection::Stopped.reason(), None, false)
}

/// Its start was cancelled.
pub(super) fn cancelled(entry: &Entry, buttons: &Buttons) -> Page {
    Page::new(&format!("The start of {} is cancelled", entry.gitspace))
        .marked(
            Icon::Gitspace,
            "Everything in it is kept.",
            "What had begun is being stopped, which may take a moment. Once it has stopped it can be started again.",
        )
        .form(&buttons.start, &[], "Start it")
}

/// Its start could not be cancelled.
pub(super) fn not_cancelled(entry: &Entry, location: &str, why: &str) -> Page {
    Page::new(&format!(
        "The start of {} was not cancelled",
        entry.gitspace
    ))
    .marked(Icon::Gateway, "Nothing was changed.", why)
    .links(&[(location, "Open it")])
}

/// What whoever helps wants to know. Nothing of the log: it may hold what is nobody's business.
fn for_support(entry: &Entry, progress: &Progress, now: SystemTime) -> Support {
    let time = jiff::Timestamp::try_from(now).unwrap_or_default();
    let mut known = vec![("Gitspace", entry.gitspace.to_string())];
    known.extend(progress.failed().map(|step| ("Failed step", step.into())));
    known.extend(progress.code.clone().map(|code| ("Code", code)));
    known.extend(progress.failure.clone().map(|said| ("Said", said)));
    Support {
        known,
        time: format!("{time:.0}"),
    }
}

/// Somebody else can start it, or nobody from here.
pub(super) fn others(entry: &Entry, can: bool) -> Page {
    if entry.state == RouteState::Starting {
        return Page::new(&format!("{} is starting", entry.gitspace))
            .marked(
                Icon::Gitspace,
                "It is on its way up.",
                "What you wanted to see opens here by itself.",
            )
            .waits(Rejection::Starting.reason(), Some(SHOWS_AGAIN), false);
    }
    let title = match entry.state {
        RouteState::Stopping => "is being stopped",
        RouteState::Error => "did not start",
        _ => "is stopped",
    };
    Page::new(&format!("{} {title}", entry.gitspace))
        .marked(
            Icon::Gitspace,
            &who(entry, can),
            "Everything in it is kept.",
        )
        .text("Once it runs, what you wanted to see opens here by itself.")
        .waits(Rejection::Stopped.reason(), Some(ASKS_AGAIN), false)
}

/// Who can start it.
fn who(entry: &Entry, can: bool) -> String {
    let owner = match &entry.owner {
        Some(owner) if !owner.is_empty() => format!("its owner, {owner},"),
        _ => "its owner".to_owned(),
    };
    match entry.wake {
        _ if !can => "It has to be started where it is run: this gateway cannot do that.".into(),
        Wakers::Off => "It is not started by opening it, but at its control plane.".into(),
        Wakers::Owner => format!("Only {owner} can start it."),
        Wakers::Shared => format!("Only {owner} and those it is shared with can start it."),
        Wakers::Organization => format!("Only {owner} and its organization can start it."),
    }
}

fn markup(progress: &Progress, now: SystemTime) -> String {
    let now = now.duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
    let millis = |millis: i64| u64::try_from(millis).unwrap_or(0);
    let of_steps = progress.steps();
    let rows: Vec<Row<'_>> = of_steps
        .iter()
        .map(|step| match step.stage {
            Stage::Later => Row::Later(step.words, step.usual),
            Stage::Since(begun) => {
                let seconds = millis(now.saturating_sub(begun)) / 1000;
                Row::Now(step.words, seconds, step.usual)
            }
            Stage::Done(took) => Row::Done(step.words, millis(took)),
            Stage::Failed(took) => Row::Failed(step.words, millis(took)),
        })
        .collect();
    steps(&rows, progress.lines.iter().map(String::as_str))
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        api::{
            gitspace::{Event, State},
            route::Route,
            wake::WakeState,
        },
        gateway::{route::Table, wake::call::Told},
    };

    fn entry(state: &str, wake: &str) -> std::sync::Arc<Entry> {
        let route: Route = serde_json::from_value(serde_json::json!({
            "gitspace": "api-k3x9q2", "state": state, "owner": "alice", "wake": wake,
        }))
        .unwrap();
        let table = Table::new(vec![]);
        table
            .apply(crate::gateway::route::Source::Feed, &route)
            .unwrap();
        table.get(&route.gitspace).unwrap()
    }

    /// How far it is, and the moment at which that is looked at.
    fn progress(fails: bool) -> (Progress, SystemTime) {
        let mut progress = Progress::default();
        let usual = [("vm_setup", 1_400), ("agent_start", 64_000)];
        let usual = usual.map(|(label, took)| (label.to_owned(), took));
        progress.take(Told::Usual(usual.into()));
        let mut told = |second: u32, kind: &str, message: &str| {
            progress.take(Told::Step(Event {
                time: format!("2026-01-01T00:00:{second:02}.250Z"),
                kind: kind.into(),
                message: message.into(),
            }));
        };
        told(0, "vm_setup_queued", "");
        told(1, "vm_setup_completed", "");
        told(1, "agent_start_queued", "");
        told(2, "agent_start_progress", "Cloning into '/work/api' <main>");
        told(
            3,
            "agent_start_progress",
            "Receiving objects: 100% (1203/1203), 4.31 MiB | 9.02 MiB/s, done.",
        );
        if fails {
            told(
                12,
                "agent_start_failed",
                "the branch \"mian\" does not exist; name another one",
            );
        }
        let (state, message) = match fails {
            true => (State::Error, None),
            false => (State::Starting, None),
        };
        progress.take(Told::State(WakeState { state, message }));
        let now: jiff::Timestamp = "2026-01-01T00:00:09Z".parse().unwrap();
        let now = Duration::from_millis(now.as_millisecond().try_into().unwrap());
        (progress, SystemTime::UNIX_EPOCH + now)
    }

    /// One of each, for `tests/pages`.
    pub(in crate::gateway) fn pages() -> Vec<(String, Rejection, Page)> {
        let buttons = &Buttons::to("/?folder=/work");
        let (going, now) = progress(false);
        let (broken, _) = progress(true);
        let stopped = entry("stopped", "owner");
        let mut pages = vec![
            (
                "wake-starting",
                Rejection::Starting,
                starting(&stopped, &going, buttons, now),
            ),
            (
                "wake-starting-unknown",
                Rejection::Starting,
                starting(&stopped, &Progress::default(), buttons, now),
            ),
            (
                "wake-failed",
                Rejection::Stopped,
                failed(&stopped, &broken, buttons, now),
            ),
            (
                "wake-stopped",
                Rejection::Stopped,
                super::stopped(&stopped, buttons, None),
            ),
            (
                "wake-refused",
                Rejection::Stopped,
                super::stopped(
                    &entry("stopping", "owner"),
                    buttons,
                    Some(
                        "It could not be started: api-k3x9q2 is stopping: a step is under way; wait until it has ended.",
                    ),
                ),
            ),
            (
                "wake-others-starting",
                Rejection::Starting,
                others(&entry("starting", "owner"), true),
            ),
            ("wake-nobody", Rejection::Stopped, others(&stopped, false)),
        ];
        for wake in ["owner", "shared", "organization", "off"] {
            let page = others(&entry("stopped", wake), true);
            pages.push(("wake-others", Rejection::Stopped, page));
        }
        pages.extend([
            (
                "wake-cancelled",
                Rejection::Stopped,
                cancelled(&stopped, buttons),
            ),
            (
                "wake-not-cancelled",
                Rejection::Starting,
                not_cancelled(
                    &stopped,
                    "/",
                    "It could not be cancelled: the control plane does not answer. Try again in a moment.",
                ),
            ),
        ]);
        let named = pages.into_iter().enumerate();
        named
            .map(|(number, (name, rejection, page))| (format!("{name}-{number}"), rejection, page))
            .collect()
    }

    async fn html(page: &Page) -> String {
        use http_body_util::BodyExt;
        let body = page.answer(http::StatusCode::OK).into_body();
        let body = body.collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn each_page_says_what_to_wait_for_and_what_to_do() {
        let all = pages();
        let find = |name: &str| {
            let mut all = all.iter();
            &all.find(|(found, ..)| found.starts_with(name)).unwrap().2
        };
        let page = html(find("wake-starting")).await;
        for part in [
            "<h1>Starting api-k3x9q2</h1>",
            "done in 1.0 s",
            "<span data-seconds=\"7\" data-then=\", usually 1 min 4 s\">for 7 s, usually 1 min 4 s</span>",
            "A start usually takes 1 min 5 s.",
            "action=\"/_gitspace/wake/cancel?to=%2F%3Ffolder%3D%2Fwork\"><button>Cancel the start</button>",
            "role=\"status\">Set up the repository and the IDE …</p>",
            "&lt;main&gt;",
            "data-reason=\"gitspace-starting\" data-follows>",
            "<noscript><meta http-equiv=\"refresh\" content=\"3\"></noscript>",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        let page = html(find("wake-failed")).await;
        for part in [
            "the branch &quot;mian&quot; does not exist",
            "failed after 11 s",
            "<button>Try again</button>",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("http-equiv"), "who reads is not disturbed");
        let page = html(find("wake-others-7")).await;
        assert!(page.contains("Only its owner, alice, can start it.") && !page.contains("<form"));
        let page = html(find("wake-nobody")).await;
        assert!(page.contains("this gateway cannot do that") && !page.contains("<form"));
    }
}
