//! Each rule can fail: histories in which it is broken, and how close to them it still holds.

use uuid::Uuid;

use super::history::{
    Answer, Change, Commit, Counted, Event, Fault, History, Micros, PrinterRow, Rollout, SECOND, Sample,
    Update, What,
};
use super::rules::{self, RULES};

const ROLLOUT: Uuid = Uuid::from_u128(1);
const PRINTER: Uuid = Uuid::from_u128(100);
const UPDATE: Uuid = Uuid::from_u128(200);

/// Says what happens, one thing a second.
#[derive(Default)]
struct Tale {
    history: History,
    now: Micros,
}

fn rollout(status: &str, max_in_flight: Option<i64>) -> Rollout {
    let (version, status) = ("1.5.0".into(), status.into());
    let everyone = max_in_flight.is_none();
    Rollout { id: ROLLOUT, number: 1, version, status, max_in_flight, max_attempts: 3, everyone }
}

fn update(id: u128, printer: u128, status: &str, open: bool) -> Update {
    Update {
        id: Uuid::from_u128(id),
        rollout: Some(ROLLOUT),
        printer: Uuid::from_u128(printer),
        version: "1.5.0".into(),
        status: status.into(),
        open,
        last: true,
        tries: 1,
        sends: 1,
        reason: None,
    }
}

/// The only one.
fn attempt(status: &str, open: bool) -> Update {
    update(UPDATE.as_u128(), PRINTER.as_u128(), status, open)
}

fn counted(rollout: Option<Uuid>, state: Option<&str>, n: i64) -> Change {
    let version = if rollout.is_some() { "1.5.0" } else { "1.0.0" };
    Change::Census(None, Some(Counted { rollout, version: version.into(), state: state.map(Into::into), n }))
}

impl Tale {
    /// A printer on 1.0.0, and a rollout of 1.5.0 that is active.
    fn begin(max_in_flight: Option<i64>) -> Self {
        let mut tale = Self::default();
        let row = PrinterRow { id: PRINTER, name: "p".into(), version: "1.0.0".into() };
        tale.commit([Change::Printer(None, Some(row)), counted(None, None, 1)]);
        tale.commit([Change::Rollout(None, Some(rollout("active", max_in_flight)))]);
        tale
    }

    fn commit(&mut self, changes: impl IntoIterator<Item = Change>) -> &mut Self {
        self.now += SECOND;
        self.history.commits.push(Commit { at: self.now, changes: changes.into_iter().collect() });
        self
    }

    /// An attempt moves, and the census with it.
    fn moves(&mut self, old: Option<Update>, new: Option<Update>) -> &mut Self {
        let state = |update: &Update| match (update.status.as_str(), update.open) {
            ("completed", true) => "completed",
            (_, true) => "open",
            ("completed", false) => "confirmed",
            ("declined", _) => "declined",
            _ => "failed",
        };
        let line = |update: &Update, n| counted(Some(ROLLOUT), Some(state(update)), n);
        let sides = old.iter().map(|old| line(old, -1)).chain(new.iter().map(|new| line(new, 1)));
        let changes: Vec<_> = sides.chain([Change::Update(old.clone(), new.clone())]).collect();
        self.commit(changes)
    }

    fn event(&mut self, socket: u64, what: What) -> &mut Self {
        self.now += SECOND;
        self.history.events.push(Event { at: self.now, printer: "p".into(), socket, what });
        self
    }

    /// A wish that is answered at once.
    fn answered(&mut self, wanted: &'static str) -> &mut Self {
        self.now += SECOND;
        let (sent, answered) = (self.now, self.now + SECOND / 10);
        self.history.answers.push(Answer { rollout: ROLLOUT, wanted, sent, answered, status: 200 });
        self
    }

    fn wait(&mut self, seconds: i64) -> &mut Self {
        self.now += seconds * SECOND;
        self
    }

    /// Only this rule is broken.
    #[track_caller]
    fn breaks(&self, rule: &str) {
        let broken: Vec<_> =
            RULES.iter().filter(|(_, holds)| holds(&self.history).is_err()).map(|(name, _)| *name).collect();
        assert_eq!(broken, [rule]);
    }

    #[track_caller]
    fn holds(&self) {
        rules::check(&self.history);
    }
}

/// The printer is there and claimed for.
fn offered() -> Tale {
    let mut tale = Tale::begin(None);
    tale.event(1, What::Opened).event(1, What::Subscribes("1.0.0".into()));
    tale.moves(None, Some(attempt("pending", true)));
    tale.event(1, What::Offered("1.5.0".into()));
    tale
}

#[test]
fn a_good_story_breaks_no_rule() {
    let mut tale = offered();
    tale.event(1, What::Progress(50));
    tale.moves(Some(attempt("pending", true)), Some(attempt("downloading", true)));
    tale.event(1, What::Reports("completed"));
    tale.moves(Some(attempt("downloading", true)), Some(attempt("completed", true)));
    tale.event(1, What::Closes).event(1, What::Closed(None)).event(1, What::Gone);
    tale.event(2, What::Opened).event(2, What::Subscribes("1.5.0".into()));
    let (old, new) = ("1.0.0", "1.5.0");
    let row = |version: &str| Some(PrinterRow { id: PRINTER, name: "p".into(), version: version.into() });
    let moved = |n, version: &str| {
        let version = version.into();
        Change::Census(None, Some(Counted { rollout: None, version, state: None, n }))
    };
    let proved = [
        Change::Printer(row(old), row(new)),
        moved(-1, old),
        moved(1, new),
        Change::Update(Some(attempt("completed", true)), Some(attempt("completed", false))),
        counted(Some(ROLLOUT), Some("completed"), -1),
        counted(Some(ROLLOUT), Some("confirmed"), 1),
    ];
    tale.commit(proved);
    tale.holds();
    rules::check_end(&tale.history, "1.5.0", 1);
    assert!(rules::arrived(&tale.history, "1.6.0", 1).is_err());
    assert!(rules::arrived(&tale.history, "1.5.0", 2).is_err());
    let mut twice = tale;
    let again = |status, open| Update { sends: 2, ..attempt(status, open) };
    twice.commit([Change::Update(Some(attempt("completed", false)), Some(again("completed", false)))]);
    assert!(rules::arrived(&twice.history, "1.5.0", 1).is_err(), "sent twice without a reason");
}

#[test]
fn two_open_offers() {
    let mut tale = offered();
    tale.moves(None, Some(update(201, 100, "pending", true)));
    tale.breaks("a printer has one open offer at most");
}

#[test]
fn more_open_than_may_be() {
    let mut tale = Tale::begin(Some(1));
    tale.moves(None, Some(attempt("pending", true)));
    tale.holds();
    tale.moves(None, Some(update(201, 101, "pending", true)));
    tale.breaks("no more offers are open than max_in_flight");
}

#[test]
fn a_census_that_missed_something() {
    let mut tale = offered();
    tale.commit([Change::Update(Some(attempt("pending", true)), Some(attempt("failed", false)))]);
    tale.breaks("the census is right at every commit");
    let mut tale = Tale::begin(None);
    tale.commit([counted(None, None, 1)]);
    tale.breaks("the census is right at every commit");
}

#[test]
fn an_answer_that_does_not_add_up() {
    let mut tale = offered();
    tale.history.samples.push(Sample { at: tale.now, rollout: ROLLOUT, total: 2, parts: [1, 0, 0, 0] });
    tale.breaks("what REST tells adds up");
}

#[test]
fn a_claim_of_a_rollout_that_is_paused() {
    let mut tale = Tale::begin(None);
    tale.commit([Change::Rollout(Some(rollout("active", None)), Some(rollout("paused", None)))]);
    tale.moves(None, Some(attempt("pending", true)));
    tale.breaks("only a rollout that makes offers claims");
}

#[test]
fn attempts_that_go_back() {
    let mut tale = offered();
    tale.moves(Some(attempt("pending", true)), Some(attempt("downloading", true)));
    tale.holds();
    tale.moves(Some(attempt("downloading", true)), Some(attempt("pending", true)));
    tale.breaks("an attempt never goes back");
    let mut tale = offered();
    tale.moves(Some(attempt("pending", true)), Some(attempt("failed", false)));
    tale.event(2, What::Subscribes("1.5.0".into()));
    tale.moves(Some(attempt("failed", false)), Some(attempt("completed", false)));
    tale.holds();
    tale.moves(Some(attempt("completed", false)), Some(attempt("failed", false)));
    tale.breaks("an attempt never goes back");
}

#[test]
fn an_offer_without_a_claim_and_one_whose_claim_was_taken_back() {
    let mut tale = Tale::begin(Some(9));
    tale.event(1, What::Opened).event(1, What::Offered("1.5.0".into()));
    tale.breaks("every offer was claimed");
    let mut tale = offered();
    tale.moves(Some(attempt("pending", true)), None);
    tale.breaks("every offer was claimed");
}

#[test]
fn an_offer_after_the_answer() {
    let late = "nothing leaves after a cancel or a pause was answered";
    let claimed = || {
        let mut tale = Tale::begin(None);
        tale.event(1, What::Opened).event(1, What::Subscribes("1.0.0".into()));
        tale.moves(None, Some(attempt("pending", true)));
        tale
    };
    let mut on_its_way = claimed();
    on_its_way.answered("cancelled").event(1, What::Offered("1.5.0".into()));
    on_its_way.holds();
    let mut slow = claimed();
    slow.answered("cancelled").wait(3).event(1, What::Offered("1.5.0".into()));
    slow.breaks(late);
    // The answer to a mark that was made after the operator's answer leaves nothing on its way.
    let mut marked = claimed();
    marked.answered("paused");
    marked.now += SECOND / 2;
    let at = marked.now;
    let event = |at, what| Event { at, printer: "p".into(), socket: 1, what };
    let marks = [What::Marks, What::Marked, What::Offered("1.5.0".into())];
    marked.history.events.extend((1..).zip(marks).map(|(n, what)| event(at + n * 1000, what)));
    marked.breaks(late);
    let mut resumed = claimed();
    resumed.answered("paused").wait(3).answered("active").event(1, What::Offered("1.5.0".into()));
    resumed.holds();
}

#[test]
fn outcomes_without_a_cause() {
    let lie = "an outcome has its cause";
    for (status, open, reason) in [
        ("completed", true, None),
        ("completed", false, None),
        ("failed", false, Some("reported")),
        ("declined", false, None),
    ] {
        let mut tale = offered();
        let new = Update { reason: reason.map(Into::into), ..attempt(status, open) };
        tale.moves(Some(attempt("pending", true)), Some(new));
        tale.breaks(lie);
    }
}

#[test]
fn a_report_that_was_acknowledged_and_is_lost() {
    let mut tale = offered();
    tale.event(1, What::Reports("failed")).event(1, What::Gone);
    tale.holds();
    let mut tale = offered();
    tale.event(1, What::Marks).event(1, What::Reports("failed")).event(1, What::Marked);
    tale.holds();
    tale.event(1, What::Marks).event(1, What::Marked);
    tale.breaks("what was acknowledged is written down");
    for closed in [What::Closed(None), What::Closed(Some(1001))] {
        let mut tale = offered();
        tale.event(1, What::Reports("completed")).event(1, closed);
        tale.breaks("what was acknowledged is written down");
    }
    let mut tale = offered();
    tale.event(1, What::Reports("completed")).event(1, What::Closed(Some(1008)));
    tale.holds();
}

#[test]
fn who_waits_for_ever() {
    let soon = "who is eligible is offered soon";
    let mut tale = Tale::begin(None);
    tale.event(1, What::Opened).event(1, What::Subscribes("1.0.0".into()));
    tale.wait(10).event(1, What::Gone);
    tale.holds();
    let mut tale = Tale::begin(None);
    tale.event(1, What::Opened).event(1, What::Subscribes("1.0.0".into()));
    tale.wait(20).event(1, What::Gone);
    tale.breaks(soon);
    let fault = Fault { what: "no database".into(), from: 5 * SECOND, to: 15 * SECOND };
    tale.history.faults.push(fault);
    tale.holds();
    // Claimed, and never sent.
    let mut tale = Tale::begin(None);
    tale.event(1, What::Opened).event(1, What::Subscribes("1.0.0".into()));
    tale.moves(None, Some(attempt("pending", true)));
    tale.wait(20).event(1, What::Gone);
    tale.breaks(soon);
}
