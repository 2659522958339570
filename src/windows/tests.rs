use jiff::Timestamp;
use jiff::civil::DateTime as Wall;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn zone(name: &str) -> TimeZoneName {
    name.parse().unwrap()
}

fn time(text: &str) -> Time {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

/// What the clock on the wall shows there, the earlier of two such moments.
fn there(zone: &str, wall: &str) -> Time {
    let wall: Wall = wall.parse().unwrap();
    let at = TimeZone::get(zone).unwrap().to_timestamp(wall).unwrap();
    DateTime::from_timestamp_micros(at.as_microsecond()).unwrap()
}

fn nightly(from: &str, to: &str, zone: &str) -> Windows {
    serde_json::from_value(json!({"weekly": [{"from": from, "to": to}], "time_zone": zone})).unwrap()
}

fn refused(body: serde_json::Value) -> Vec<(String, String)> {
    let body: WindowsBody = serde_json::from_value(body).unwrap();
    Windows::try_from(body).unwrap_err().within("windows")
}

#[track_caller]
fn opens(windows: &Windows, now: Time, expected: Time) {
    assert_eq!(windows.state(None, now), Opening::Closed { opens: expected });
}

#[test]
fn names_of_time_zones_are_iana_s_and_a_wrong_one_names_the_nearest() {
    assert_eq!(zone("europe/rome").as_str(), "Europe/Rome");
    assert_eq!(TimeZoneName::utc(), zone("UTC"));
    for (text, nearest) in [
        ("Europe/Rom", "Europe/Rome"),
        ("Rome", "Europe/Rome"),
        ("America/New York", "America/New_York"),
        ("Etc/Unknown", "Etc/"),
        ("", ""),
        ("../../etc/passwd", ""),
    ] {
        let error = text.parse::<TimeZoneName>().unwrap_err().to_string();
        let start = format!("`{text}` is not the IANA name of a time zone; the nearest is `{nearest}");
        assert!(error.starts_with(&start), "{error}");
    }
    let long = "x".repeat(5000).parse::<TimeZoneName>().unwrap_err().to_string();
    assert!(long.len() < 200, "{long}");
}

#[test]
fn windows_survive_json_and_what_was_left_out_is_filled_in() {
    let windows: Windows = serde_json::from_value(json!({"weekly": [
        {"days": ["tue", "mon", "tue"], "from": "02:00", "to": "05:00"}, {"from": "22:30", "to": "00:00"}]}))
    .unwrap();
    let shown = serde_json::to_value(&windows).unwrap();
    assert_eq!(
        shown,
        json!({"weekly": [{"days": ["mon", "tue"], "from": "02:00", "to": "05:00"},
            {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "22:30", "to": "00:00"}],
            "time_zone": null, "mandatory_ignores": false})
    );
    assert_eq!(serde_json::from_value::<Windows>(shown).unwrap(), windows);
}

#[test]
fn every_wrong_field_is_named_with_its_remedy() {
    let errors = refused(json!({"weekly": [
        {"days": ["mon", "funday"], "from": "2:00", "to": "24:00"}, {"days": [], "from": "02:00", "to": "+1:00"}],
        "time_zone": "Europe/Rom"}));
    let fields: Vec<_> = errors.iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "windows.weekly[0].days[1]",
            "windows.weekly[0].from",
            "windows.weekly[0].to",
            "windows.weekly[1].days",
            "windows.weekly[1].to",
            "windows.time_zone"
        ]
    );
    assert!(errors[0].1.contains("`funday` is not one of mon, tue"), "{errors:?}");
    assert!(errors[1].1.contains("`2:00` is not a time of day; write hours and minutes like 02:00"));
    let many = refused(json!({"weekly": vec![json!({"from": "02:00", "to": "03:00"}); 51]}));
    assert_eq!(many.len(), 1);
    assert!(many[0].1.contains("51 windows; 50 are the most"), "{many:?}");
    for unknown in [
        json!({"weekly": [], "timezone": "UTC"}),
        json!({"weekly": [{"from": "02:00", "to": "03:00", "day": 1}]}),
    ] {
        assert!(serde_json::from_value::<Windows>(unknown).is_err());
    }
}

#[test]
fn without_windows_it_is_always_open() {
    let none: Windows = serde_json::from_value(json!({"weekly": []})).unwrap();
    assert_eq!(none.state(None, time("2026-01-01T00:00:00Z")), Opening::Open);
}

#[test]
fn a_window_holds_its_first_moment_and_not_its_last() {
    let night = nightly("02:00", "05:00", "Europe/Rome");
    assert_eq!(night.state(None, time("2026-01-15T01:00:00Z")), Opening::Open);
    assert_eq!(night.state(None, time("2026-01-15T03:59:59.999999Z")), Opening::Open);
    opens(&night, time("2026-01-15T04:00:00Z"), time("2026-01-16T01:00:00Z"));
    opens(&night, time("2026-01-15T00:59:59.999999Z"), time("2026-01-15T01:00:00Z"));
}

#[test]
fn the_printer_s_clock_counts_before_that_of_the_windows_and_utc_comes_last() {
    let now = time("2026-01-15T01:30:00Z");
    let rome = nightly("02:00", "03:00", "Europe/Rome");
    assert_eq!(rome.state(None, now), Opening::Open);
    let tokyo = zone("Asia/Tokyo");
    assert_eq!(rome.state(Some(&tokyo), now), Opening::Closed { opens: time("2026-01-15T17:00:00Z") });
    let plain: Windows =
        serde_json::from_value(json!({"weekly": [{"from": "01:00", "to": "02:00"}]})).unwrap();
    assert_eq!(plain.state(None, now), Opening::Open);
    assert_eq!(
        (rome.zone(Some(&tokyo)), rome.zone(None), plain.zone(None)),
        (tokyo, zone("Europe/Rome"), zone("UTC"))
    );
}

#[test]
fn a_window_past_midnight_belongs_to_the_day_on_which_it_starts() {
    let friday: Windows =
        serde_json::from_value(json!({"weekly": [{"days": ["fri", "sun"], "from": "23:00", "to": "01:00"}]}))
            .unwrap();
    // 2026-01-16 is a Friday.
    assert_eq!(friday.state(None, time("2026-01-17T00:30:00Z")), Opening::Open);
    opens(&friday, time("2026-01-16T00:30:00Z"), time("2026-01-16T23:00:00Z"));
    assert_eq!(friday.state(None, time("2026-01-19T00:59:00Z")), Opening::Open, "Sunday's runs into Monday");
    let whole: Windows =
        serde_json::from_value(json!({"weekly": [{"days": ["sat"], "from": "06:00", "to": "06:00"}]}))
            .unwrap();
    assert_eq!(whole.state(None, time("2026-01-18T05:59:00Z")), Opening::Open, "from = to is a whole day");
    opens(&whole, time("2026-01-18T06:00:00Z"), time("2026-01-24T06:00:00Z"));
}

#[test]
fn the_night_that_has_no_two_o_clock_opens_no_window_for_it() {
    // Rome goes from 02:00 to 03:00 on Sunday, 2026-03-29, at 01:00 UTC.
    let hour = nightly("02:00", "03:00", "Europe/Rome");
    opens(&hour, time("2026-03-29T00:59:59Z"), there("Europe/Rome", "2026-03-30T02:00"));
    opens(&hour, time("2026-03-29T01:00:00Z"), there("Europe/Rome", "2026-03-30T02:00"));
    let long = nightly("02:00", "05:00", "Europe/Rome");
    opens(&long, time("2026-03-29T00:59:59Z"), time("2026-03-29T01:00:00Z"));
    opens(&long, time("2026-03-29T03:00:00Z"), there("Europe/Rome", "2026-03-30T02:00"));
    let only: Windows = serde_json::from_value(
        json!({"weekly": [{"days": ["sun"], "from": "02:15", "to": "02:45"}], "time_zone": "Europe/Rome"}),
    )
    .unwrap();
    opens(&only, time("2026-03-28T12:00:00Z"), there("Europe/Rome", "2026-04-05T02:15"));
}

#[test]
fn the_hour_that_a_night_has_twice_is_inside_both_times() {
    // Rome goes from 03:00 back to 02:00 on Sunday, 2026-10-25, at 01:00 UTC.
    let hour = nightly("02:00", "03:00", "Europe/Rome");
    for inside in
        ["2026-10-25T00:00:00Z", "2026-10-25T00:59:59Z", "2026-10-25T01:00:00Z", "2026-10-25T01:59:59Z"]
    {
        assert_eq!(hour.state(None, time(inside)), Opening::Open, "{inside}");
    }
    opens(&hour, time("2026-10-25T02:00:00Z"), there("Europe/Rome", "2026-10-26T02:00"));
    let half = nightly("01:30", "02:30", "Europe/Rome");
    opens(&half, time("2026-10-25T00:30:00Z"), time("2026-10-25T01:00:00Z"));
    opens(&half, time("2026-10-25T01:30:00Z"), there("Europe/Rome", "2026-10-26T01:30"));
}

#[test]
fn half_hours_and_the_date_line_are_right() {
    let night = nightly("02:00", "03:00", "Asia/Kolkata");
    opens(&night, time("2026-05-01T00:00:00Z"), time("2026-05-01T20:30:00Z"));
    // Lord Howe's summer time is half an hour: 01:30 comes twice on 2026-04-05.
    let lord_howe = nightly("01:45", "01:50", "Australia/Lord_Howe");
    assert_eq!(lord_howe.state(None, time("2026-04-04T14:46:00Z")), Opening::Open);
    opens(&lord_howe, time("2026-04-04T14:50:00Z"), time("2026-04-04T15:15:00Z"));
    // Samoa had no Friday, 2011-12-30.
    let friday: Windows = serde_json::from_value(
        json!({"weekly": [{"days": ["fri"], "from": "12:00", "to": "13:00"}], "time_zone": "Pacific/Apia"}),
    )
    .unwrap();
    opens(&friday, there("Pacific/Apia", "2011-12-29T23:00"), there("Pacific/Apia", "2012-01-06T12:00"));
    // It is Tuesday there while it is still Monday in UTC.
    let line: Windows = serde_json::from_value(
        json!({"weekly": [{"days": ["tue"], "from": "02:00", "to": "03:00"}], "time_zone": "Pacific/Kiritimati"}),
    )
    .unwrap();
    assert_eq!(line.state(None, time("2026-01-12T12:30:00Z")), Opening::Open);
}

#[test]
fn it_is_said_in_words() {
    let night = nightly("02:00", "05:00", "Europe/Rome");
    let state = night.state(None, time("2026-01-19T12:00:00Z"));
    assert_eq!(state.in_words(&zone("Europe/Rome")), "opens Tue 02:00 Europe/Rome");
    assert_eq!(Opening::Open.in_words(&zone("UTC")), "open");
}

#[test]
fn the_end_of_the_calendar_is_no_trouble() {
    let night = nightly("02:00", "05:00", "Europe/Rome");
    for now in [Time::MAX_UTC, Time::MIN_UTC, time("9999-12-30T21:00:00Z")] {
        let _ = night.state(None, now);
        let _ = zone("Europe/Rome").wall_clock(now);
    }
}

const ZONES: &[&str] = &[
    "UTC",
    "Europe/Rome",
    "America/New_York",
    "America/St_Johns",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Africa/Casablanca",
    "Antarctica/Troll",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
];

/// The slow way: what the clock on the wall shows, held against the windows of today and of yesterday as dates.
fn is_open(windows: &Windows, zone: &TimeZone, at: Timestamp) -> bool {
    let wall = zone.to_datetime(at);
    let (today, yesterday) = (wall.date(), wall.date().yesterday().unwrap());
    let on = |day: jiff::civil::Date, time: WallTime| {
        day.at((time.0 / 60).try_into().unwrap(), (time.0 % 60).try_into().unwrap(), 0, 0)
    };
    [today, yesterday].into_iter().any(|day| {
        windows.weekly.iter().any(|window| {
            let end = if window.to.0 > window.from.0 { day } else { day.tomorrow().unwrap() };
            let name = day.strftime("%a").to_string().to_lowercase();
            window.days.iter().any(|day| day.as_str() == name)
                && (on(day, window.from)..on(end, window.to)).contains(&wall)
        })
    })
}

fn some_windows() -> impl Strategy<Value = Windows> {
    let minute = (0..96u16).prop_map(|quarter| WallTime(quarter * 15));
    let window = (proptest::sample::subsequence(Day::ALL, 1..=7), minute.clone(), minute);
    let window = window.prop_map(|(days, from, to)| Window { days, from, to });
    let short = (0..96u16, 0..7usize, 1..12u16).prop_map(|(quarter, day, minutes)| Window {
        days: vec![Day::ALL[day]],
        from: WallTime(quarter * 15),
        to: WallTime((quarter * 15 + minutes) % MINUTES_OF_DAY),
    });
    proptest::collection::vec(prop_oneof![window, short], 1..4)
        .prop_map(|weekly| Windows { weekly, ..Windows::default() })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Half of the moments are close to a change of the clocks.
    #[test]
    fn what_opens_next_is_what_a_walk_through_all_minutes_finds(
        windows in some_windows(), name in proptest::sample::select(ZONES), second in 1_200_000_000i64..2_100_000_000,
        near in any::<bool>(), before in 0i64..200_000)
    {
        let zone = TimeZone::get(name).unwrap();
        let mut now = Timestamp::from_second(second).unwrap();
        if let Some(change) = zone.following(now).next().filter(|_| near) {
            now = change.timestamp() - SignedDuration::from_secs(before - 10_000);
        }
        let time = DateTime::from_timestamp_micros(now.as_microsecond()).unwrap();
        let said = windows.state(Some(&name.parse().unwrap()), time);
        prop_assert_eq!(said == Opening::Open, is_open(&windows, &zone, now));
        if let Opening::Closed { opens } = said {
            prop_assert!(opens > time);
            let next_minute = (now.as_second().div_euclid(60) + 1) * 60;
            let mut minutes = (0..).map(|minute| Timestamp::from_second(next_minute + minute * 60).unwrap());
            let first = minutes.find(|at| is_open(&windows, &zone, *at)).unwrap();
            prop_assert_eq!(opens.timestamp_micros(), first.as_microsecond());
        }
    }
}
