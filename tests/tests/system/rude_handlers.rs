//! Handlers that hang, reset, trickle, babble or never stop, and answers that mean something else
//! than 200: each has its outcome, the program keeps its memory, and the neighbour is served.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hookwell_tests::audit::Audit;
use hookwell_tests::handler::{Call, Reply};
use hookwell_tests::program::Program;
use hookwell_tests::raw_handler::{Caller, RawHandler};
use hookwell_tests::reader::Record;
use hookwell_tests::sender::now_in_seconds;
use hookwell_tests::stage::{Stage, destination};
use hookwell_tests::wait;

use crate::{Common, tests};

tests![
    a_handler_that_hangs_is_given_up_in_time_and_tried_again,
    a_handler_that_breaks_connections_is_tried_again,
    an_answer_whose_head_trickles_is_given_up_in_time,
    an_answer_whose_body_trickles_counts_by_its_status,
    a_body_without_end_counts_by_its_status_and_takes_no_memory,
    a_head_without_end_is_no_answer_and_takes_no_memory,
    what_is_no_http_is_no_answer,
    an_answer_that_is_cut_off_counts_by_its_status,
    what_comes_before_an_answer_is_passed_over,
    a_redirect_is_never_followed,
    a_success_that_comes_too_late_is_a_failure_and_settled_once,
    retry_after_is_heeded_as_seconds_and_as_date_and_absurd_ones_are_bounded,
];

const IDS: [&str; 4] = ["one", "two", "three", "four"];
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const MEBIBYTE: u64 = 1024 * 1024;

/// A stage on which each event goes to `orders`, which is well-behaved, and to `rude`, which is not.
struct Scene {
    processor: Program,
    rude: RawHandler,
    stage: Stage,
}

impl Scene {
    /// Where `timeout` is not what a test is about, no machine is so slow that it comes into play.
    fn set(
        common: &Common,
        timeout: &str,
        behave: impl Fn(&mut Caller<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let rude = RawHandler::start(behave)?;
        let stage = common.stage_with(|settings| {
            let url = rude.url();
            settings.destinations = destination("orders", "")
                + &destination("rude", &format!("timeout = {timeout:?}\nconcurrency = 2"))
                    .replace("HANDLER/rude", &url);
            settings.routes = "[[routes]]\nsource = \"*\"\nto = [\"orders\", \"rude\"]".to_owned();
            settings.retry = "tiers = [\"100ms\", \"200ms\"]\nmax_attempts = 4\njitter = 0.0".to_owned();
        })?;
        stage.accept(&IDS)?;
        let processor = stage.processor()?;
        Ok(Self { processor, rude, stage })
    }

    /// Waits until all is settled. `orders` was called once for each event whatever `rude` does.
    fn settled(&self) -> Result<Audit> {
        let accepted: BTreeSet<_> = IDS.iter().map(|id| ("github".to_owned(), (*id).to_owned())).collect();
        let audit = self.stage.until_settled_at(&["orders", "rude"], &accepted)?;
        ensure!(audit.is_clean(), "{audit}");
        ensure!(self.stage.handler.count() == IDS.len(), "{:?}", self.stage.handler.calls());
        for id in IDS {
            let calls: Vec<_> = self.rude.calls().into_iter().filter(|call| call.event == id).collect();
            ensure!(calls.iter().all(|call| call.key == calls[0].key), "{calls:?}");
        }
        Ok(audit)
    }

    /// All events are delivered to both, and `rude` was called once for each.
    fn all_done_at_once(&self) -> Result<()> {
        let audit = self.settled()?;
        ensure!((audit.done, audit.dead) == (2 * IDS.len(), 0), "{audit}");
        ensure!(self.rude.calls().len() == IDS.len(), "{:?}", self.rude.calls());
        Ok(())
    }

    /// `rude` was called as often as is allowed for each event, always with this outcome, and the
    /// dead letters say `why`.
    fn all_dead(&self, outcome: &str, why: &str) -> Result<()> {
        let audit = self.settled()?;
        ensure!((audit.done, audit.dead) == (IDS.len(), IDS.len()), "{audit}");
        for id in IDS {
            let calls = self.rude.calls().into_iter().filter(|call| call.event == id);
            let attempts: Vec<_> = calls.map(|call| call.attempt).collect();
            ensure!(attempts == ["0", "1", "2", "3"], "{id}: {attempts:?}");
        }
        for letter in self.stage.dead_letters()? {
            ensure!(letter.header("hookwell-error-class") == "exhausted", "{letter:?}");
            ensure!(letter.header("hookwell-error").contains(why), "{}", letter.header("hookwell-error"));
        }
        self.until_counted(4 * IDS.len(), outcome)
    }

    /// Counters follow the commit that the audit has seen already.
    fn until_counted(&self, calls: usize, outcome: &str) -> Result<()> {
        let labels = ["destination=\"rude\"", &format!("outcome=\"{outcome}\"")];
        wait::until(&format!("{calls} calls that ended as {outcome}"), || {
            let count = self.processor.metric("hookwell_processor_attempts_total", &labels)?;
            Ok((count == calls as f64).then_some(()))
        })
    }
}

fn a_handler_that_hangs_is_given_up_in_time_and_tried_again(common: &Common) -> Result<()> {
    let scene = Scene::set(common, "600ms", |caller| {
        caller.read()?;
        caller.hang()
    })?;
    scene.all_dead("timed_out", "did not answer within 600 ms")
}

fn a_handler_that_breaks_connections_is_tried_again(common: &Common) -> Result<()> {
    let scene = Scene::set(common, "1m", |caller| match caller.number % 4 {
        0 => caller.reset(),
        1 => {
            caller.read()?;
            caller.reset()
        }
        2 => caller.read().map(drop),
        _ => {
            caller.read()?;
            caller.send(b"HTTP/1.1 20")?;
            caller.reset()
        }
    })?;
    let audit = scene.settled()?;
    ensure!((audit.done, audit.dead) == (IDS.len(), IDS.len()), "{audit}");
    scene.until_counted(16, "unreachable")?;
    ensure!(scene.rude.connections() == 16, "{} connections", scene.rude.connections());
    Ok(())
}

fn an_answer_whose_head_trickles_is_given_up_in_time(common: &Common) -> Result<()> {
    let scene = Scene::set(common, "600ms", |caller| {
        caller.read()?;
        caller.trickle(b"HTTP/1.1 200 OK\r\nserver: a very long name of some server\r\n\r\n")
    })?;
    scene.all_dead("timed_out", "did not answer within 600 ms")
}

fn an_answer_whose_body_trickles_counts_by_its_status(common: &Common) -> Result<()> {
    let scene = Scene::set(common, "3s", |caller| {
        caller.read()?;
        caller.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n")?;
        caller.trickle(&[b'x'; 9999])
    })?;
    scene.all_done_at_once()
}

fn a_body_without_end_counts_by_its_status_and_takes_no_memory(common: &Common) -> Result<()> {
    let scene = Scene::set(common, "3s", |caller| {
        if caller.read()?.event == "one" {
            // One that says its length, of 64 MiB.
            caller.send(b"HTTP/1.1 200 OK\r\ncontent-length: 67108864\r\n\r\n")?;
            return (0..64).try_for_each(|_| caller.send(vec![b'x'; MEBIBYTE as usize]));
        }
        caller.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; MEBIBYTE as usize], b"\r\n"].concat();
        caller.repeat(&chunk)
    })?;
    scene.all_done_at_once()?;
    stays_small(&scene.processor)
}

fn a_head_without_end_is_no_answer_and_takes_no_memory(common: &Common) -> Result<()> {
    let scene = Scene::set(common, "1m", |caller| {
        let call = caller.read()?;
        caller.send(b"HTTP/1.1 200 OK\r\n")?;
        match call.event.as_str() {
            "one" => caller.repeat(&vec![b'x'; MEBIBYTE as usize]),
            _ => caller.repeat(b"a-header: of many\r\n"),
        }
    })?;
    scene.all_dead("unreachable", "could not be reached")?;
    stays_small(&scene.processor)
}

/// A processor of the tests takes about 60 MiB; what it was sent is far more.
fn stays_small(processor: &Program) -> Result<()> {
    let peak = processor.peak_bytes()?;
    ensure!(peak < 160 * MEBIBYTE, "it took {} MiB", peak / MEBIBYTE);
    Ok(())
}

fn what_is_no_http_is_no_answer(common: &Common) -> Result<()> {
    let scene = Scene::set(common, "1m", |caller| {
        match caller.read()?.event.as_str() {
            "one" => caller.send(b"SSH-2.0-OpenSSH_9.9\r\n")?,
            "two" => caller.send(b"HTTP/1.1 2000 OK\r\n\r\n")?,
            "three" => caller.send([0xff, 0x00, 0x16, 0x03, 0x01].repeat(200))?,
            _ => caller.send(b"HTTP/1.1 200 OK\r\ncontent-length: some\r\n\r\n")?,
        }
        caller.finish()
    })?;
    scene.all_dead("unreachable", "could not be reached")
}

fn an_answer_that_is_cut_off_counts_by_its_status(common: &Common) -> Result<()> {
    let scene = Scene::set(common, "1m", |caller| {
        let call = caller.read()?;
        caller.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nonly half")?;
        if call.event == "one" { caller.reset() } else { Ok(()) }
    })?;
    scene.all_done_at_once()
}

fn what_comes_before_an_answer_is_passed_over(common: &Common) -> Result<()> {
    let scene = Scene::set(common, "1m", |caller| {
        match caller.read()?.event.as_str() {
            "one" => caller.send(b"HTTP/1.1 100 Continue\r\n\r\n")?,
            _ => caller.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(3))?,
        }
        caller.send(OK)
    })?;
    scene.all_done_at_once()
}

fn a_redirect_is_never_followed(common: &Common) -> Result<()> {
    let trap = RawHandler::start(|caller| {
        caller.read()?;
        caller.send(OK)
    })?;
    let location = trap.url();
    let scene = Scene::set(common, "1m", move |caller| {
        let status = match caller.read()?.event.as_str() {
            "one" => "301 Moved Permanently",
            "two" => "302 Found",
            "three" => "307 Temporary Redirect",
            _ => "308 Permanent Redirect",
        };
        caller.send(format!("HTTP/1.1 {status}\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"))
    })?;
    let audit = scene.settled()?;
    ensure!((audit.done, audit.dead) == (IDS.len(), IDS.len()), "{audit}");
    ensure!(trap.connections() == 0 && scene.rude.calls().len() == IDS.len(), "{:?}", scene.rude.calls());
    for letter in scene.stage.dead_letters()? {
        ensure!(letter.header("hookwell-error-class") == "permanent", "{letter:?}");
    }
    Ok(())
}

fn a_success_that_comes_too_late_is_a_failure_and_settled_once(common: &Common) -> Result<()> {
    let scene = Scene::set(common, "3s", |caller| {
        if caller.read()?.attempt == "0" {
            wait::pause(Duration::from_secs(6));
        }
        caller.send(OK)
    })?;
    let audit = scene.settled()?;
    ensure!((audit.done, audit.dead) == (2 * IDS.len(), 0), "{audit}");
    let calls = scene.rude.calls();
    ensure!(calls.len() == 2 * IDS.len(), "{calls:?}");
    // The late answers have come by now; they change nothing.
    scene.stage.accept(&IDS)?;
    scene.stage.until_caught_up()?;
    let again = scene.settled()?;
    ensure!((again.done, again.dead) == (audit.done, audit.dead), "{again}");
    ensure!(scene.rude.calls().len() == calls.len());
    Ok(())
}

const DAY: u64 = 24 * 3600;

/// What a handler says beside its 429: an id, and `Retry-After`.
fn delays() -> Vec<(&'static str, String)> {
    let date = |text: &str| format!("Fri, {text} 00:00:00 GMT");
    vec![
        ("nothing", String::new()),
        ("word", "soon".to_owned()),
        ("negative", "-5".to_owned()),
        ("fraction", "0.5".to_owned()),
        ("beyond-numbers", "9".repeat(40)),
        ("long-ago", date("31 Dec 1971")),
        ("seconds", "2".to_owned()),
        ("date", "of the moment of the answer".to_owned()),
        ("absurd-seconds", u64::MAX.to_string()),
        ("absurd-date", date("31 Dec 9999")),
    ]
}

/// The moment in `seconds` as HTTP writes it.
fn date_in(seconds: u64) -> String {
    let at = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(now_in_seconds() + seconds);
    httpdate::fmt_http_date(at)
}

fn retry_after_is_heeded_as_seconds_and_as_date_and_absurd_ones_are_bounded(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.retry = "tiers = [\"300ms\", \"1s\"]\nmax_attempts = 2\njitter = 0.0".to_owned();
    })?;
    let delays = delays();
    let said = delays.clone();
    stage.handler.answer(move |call| {
        match (call.attempt(), said.iter().find(|(id, _)| *id == call.event())) {
            ("0", Some(("date", _))) => Reply { retry_after: Some(date_in(3)), ..Reply::from(429) },
            ("0", Some((_, text))) => Reply { retry_after: Some(text.clone()), ..Reply::from(429) },
            _ => Reply::from(200),
        }
    });
    stage.accept(&delays.iter().map(|(id, _)| *id).collect::<Vec<_>>())?;
    let processor = stage.processor()?;
    stage.reader.until_holds(&stage.topic("retry.2"), 4)?;
    let soon = 8;
    wait::until("the others to be called again", || Ok((stage.handler.count() == 10 + soon).then_some(())))?;
    let (first_tier, second_tier) =
        (stage.reader.read(&stage.topic("retry.1"))?, stage.reader.read(&stage.topic("retry.2"))?);
    for (id, text) in &delays {
        let in_second = ["seconds", "date", "absurd-seconds", "absurd-date"].contains(id);
        let tier = if in_second { &second_tier } else { &first_tier };
        let record = tier.iter().find(|record| record.event().1 == *id);
        let wait = waits(record.with_context(|| format!("{id}: {text:?} is in the wrong tier"))?)?;
        let called: Vec<_> = stage.handler.calls_for(id).iter().map(|call: &Call| call.at).collect();
        let wait = wait - called[0];
        // What the handler's clock and ours show may lie a little apart, and a date is in seconds.
        let least = match *id {
            "seconds" => 2_000,
            "date" => 1_900,
            "absurd-seconds" | "absurd-date" => DAY * 1000,
            _ => 300,
        };
        ensure!((least..least + 60_000).contains(&wait), "{id}: {text:?} became {wait} ms");
        ensure!(called.get(1).is_none_or(|again| called[0] + least <= *again), "{id}: early: {called:?}");
    }
    ensure!(processor.stop()?.success());
    Ok(())
}

/// Until when a retry waits, milliseconds since the epoch.
fn waits(record: &Record) -> Result<u64> {
    let text = record.header("hookwell-not-before");
    text.parse().with_context(|| format!("{text:?} is no moment"))
}
