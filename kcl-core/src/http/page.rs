//! The status as one page for people: no script, everything escaped, legible on a phone and in the dark.

use std::fmt::{self, Display, Write};
use std::time::Duration;

use super::answer::Look;
use super::document::{BillDocument, Document, LeaseCounts, MemberDocument, RateDocument, ShardDocument};
use crate::scheduler::Length;

const STYLE: &str = include_str!("page.css");
/// How often a browser asks again, in seconds; less often for a page with every lease.
const REFRESH: (u32, u32) = (5, 60);

pub(super) fn render(look: &Look<'_>, all: bool) -> String {
    let document = Document::of(look, all);
    let mut page = String::with_capacity(8 << 10);
    match write_page(&mut page, &document, all) {
        Ok(()) => page,
        // Writing to a string does not fail; a `Display` that claims so gets no half page.
        Err(fmt::Error) => "the page could not be written\n".to_owned(),
    }
}

/// Text in which nothing is taken for markup, in elements as well as in quoted attributes.
struct Text<T>(T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escape<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl Write for Escape<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                text.chars().try_for_each(|letter| match letter {
                    '&' => self.0.write_str("&amp;"),
                    '<' => self.0.write_str("&lt;"),
                    '>' => self.0.write_str("&gt;"),
                    '"' => self.0.write_str("&quot;"),
                    '\'' => self.0.write_str("&#39;"),
                    letter => self.0.write_char(letter),
                })
            }
        }
        write!(Escape(f), "{}", self.0)
    }
}

fn millis(millis: u64) -> Length {
    Length(Duration::from_millis(millis))
}

/// A length of time, or a dash if there is none.
fn length(of: Option<u64>) -> String {
    of.map_or_else(|| "–".to_owned(), |of| millis(of).to_string())
}

fn bytes(count: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "it is rounded anyway")]
    let count_in = |unit: u64| count as f64 / unit as f64;
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{:.0} kB", count_in(1_000)),
        10_000_000..10_000_000_000 => format!("{:.0} MB", count_in(1_000_000)),
        _ => format!("{:.0} GB", count_in(1_000_000_000)),
    }
}

/// The colour of an activity or a health.
fn colour(word: &str) -> &'static str {
    match word {
        "delivering" | "ready" => "good",
        "idle" => "calm",
        "waiting" | "starting" | "not held" => "wait",
        _ => "bad",
    }
}

fn write_page(page: &mut String, document: &Document, all: bool) -> fmt::Result {
    let Document { application, stream, worker, health, phase, .. } = document;
    let refresh = if all { REFRESH.1 } else { REFRESH.0 };
    write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"refresh\" content=\"{refresh}\">\n<title>{health}: {}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<header><h1>{}</h1> <span class=\"word {}\">{health}</span>\
         </header>\n<p class=\"soft\">stream {} · worker {}{}{}</p>\n",
        Text(application),
        Text(application),
        colour(health),
        Text(stream),
        Text(worker),
        if *phase == *health || *phase == "running" { String::new() } else { format!(" · {phase}") },
        if document.housekeeper { " · keeps house" } else { "" },
    )?;
    write_problems(page, document)?;
    write_shards(page, &document.shards)?;
    // A fleet says itself what each member holds.
    write_leases(page, &document.leases, document.fleet.is_none(), all)?;
    if let Some(others) = &document.other_leases {
        write_others(page, others)?;
    }
    if let Some(members) = &document.fleet {
        write_fleet(page, members)?;
    }
    if let Some(bill) = &document.bill {
        write_bill(page, bill)?;
    }
    write!(
        page,
        "<p class=\"soft\">As this worker sees it; asked again every {refresh} s. \
         <a href=\"/status.json{}\">JSON</a></p>\n</body>\n</html>\n",
        if all { "?all=1" } else { "" }
    )
}

fn write_problems(page: &mut String, document: &Document) -> fmt::Result {
    if !document.problems.is_empty() {
        page.write_str("<ul class=\"problems\">\n")?;
        for problem in &document.problems {
            writeln!(page, "<li><b>{}</b> {}</li>", Text(problem.kind), Text(&problem.text))?;
        }
        page.write_str("</ul>\n")?;
    }
    if !document.notes.is_empty() {
        page.write_str("<ul class=\"notes\">\n")?;
        for note in &document.notes {
            writeln!(page, "<li>{}</li>", Text(note))?;
        }
        page.write_str("</ul>\n")?;
    }
    Ok(())
}

fn write_shards(page: &mut String, shards: &[ShardDocument]) -> fmt::Result {
    writeln!(page, "<h2>Shards of this worker ({})</h2>", shards.len())?;
    if shards.is_empty() {
        return page.write_str("<p class=\"soft\">none</p>\n");
    }
    page.write_str(
        "<table class=\"shards\">\n<thead><tr><th>shard</th><th>activity</th><th>why</th><th class=\"number\">lag</th>\
         <th class=\"number\">checkpoint</th><th class=\"number\">records</th>\
         <th class=\"number\">buffered</th></tr></thead>\n<tbody>\n",
    )?;
    // What is wrong comes first.
    let (wrong, well): (Vec<_>, Vec<_>) = shards.iter().partition(|shard| shard.problem.is_some());
    for shard in wrong.into_iter().chain(well) {
        writeln!(
            page,
            "<tr><td class=\"id\">{}</td><td><span class=\"word {}\">{}</span></td>\
             <td data-label=\"stage {}\">{}</td><td class=\"number\" data-label=\"lag\">{}</td>\
             <td class=\"number\" data-label=\"checkpoint\" title=\"{}\">{}</td>\
             <td class=\"number\" data-label=\"records\">{}</td>\
             <td class=\"number\" data-label=\"buffered\">{}</td></tr>",
            Text(&shard.shard),
            colour(shard.activity),
            shard.activity,
            Text(&shard.stage),
            Text(&shard.reason),
            lag(shard),
            Text(&shard.checkpoint),
            checkpoint(shard),
            shard.records,
            bytes(shard.buffered_bytes as u64),
        )?;
    }
    page.write_str("</tbody>\n</table>\n")
}

/// The sentinel if nothing is processed, else how long ago the checkpoint moved, if something is not in it.
fn checkpoint(shard: &ShardDocument) -> String {
    if shard.uncheckpointed {
        format!("{} ago", millis(shard.checkpoint_age_millis))
    } else if shard.checkpoint.starts_with(|letter: char| letter.is_ascii_digit()) {
        "up to date".to_owned()
    } else {
        shard.checkpoint.clone()
    }
}

/// The lag, or a dash if the source did not say.
fn lag(shard: &ShardDocument) -> String {
    match shard.lag_millis {
        Some(0) => "none".to_owned(),
        other => length(other),
    }
}

fn write_leases(page: &mut String, leases: &LeaseCounts, shows_owners: bool, all: bool) -> fmt::Result {
    page.write_str("<h2>Leases of the application</h2>\n<dl class=\"leases\">\n")?;
    let mut box_of = |name: &dyn Display, count: &dyn Display| {
        writeln!(page, "<div><dt>{}</dt><dd>{}</dd></div>", Text(name), Text(count))
    };
    box_of(&"all", &leases.total)?;
    box_of(&"held by this worker", &leases.held_here)?;
    box_of(&"held by others", &leases.held_by_others)?;
    box_of(&"free", &leases.free)?;
    box_of(&"ended", &leases.ended)?;
    if leases.unreadable > 0 {
        box_of(&"unreadable", &leases.unreadable)?;
    }
    box_of(&"table listed", &format_args!("{} ago", length(leases.listed_millis_ago)))?;
    page.write_str("</dl>\n")?;
    if shows_owners {
        write_owners(page, leases)?;
    }
    let (link, text) =
        if all { ("/status", "only this worker's shards") } else { ("/status?all=1", "every lease") };
    writeln!(page, "<p><a href=\"{link}\">{text}</a></p>")
}

fn write_owners(page: &mut String, leases: &LeaseCounts) -> fmt::Result {
    page.write_str(
        "<table class=\"narrow\">\n<thead><tr><th>owner</th><th class=\"number\">leases</th></tr></thead>\n<tbody>\n",
    )?;
    for (owner, count) in &leases.by_owner {
        writeln!(
            page,
            "<tr><td class=\"id\">{}</td><td class=\"number\" data-label=\"leases\">{count}</td></tr>",
            Text(owner)
        )?;
    }
    page.write_str("</tbody>\n</table>\n")
}

fn write_others(page: &mut String, others: &[super::document::LeaseDocument]) -> fmt::Result {
    write!(
        page,
        "<h2>Leases that this worker does not hold ({})</h2>\n<table class=\"others\">\n<thead><tr><th>shard</th>\
         <th>why</th><th>checkpoint</th></tr></thead>\n<tbody>\n",
        others.len()
    )?;
    for lease in others {
        writeln!(
            page,
            "<tr><td class=\"id\">{}</td><td>{}</td><td data-label=\"checkpoint\">{}</td></tr>",
            Text(&lease.shard),
            Text(&lease.reason),
            Text(&lease.checkpoint)
        )?;
    }
    page.write_str("</tbody>\n</table>\n")
}

fn write_fleet(page: &mut String, members: &[MemberDocument]) -> fmt::Result {
    write!(
        page,
        "<h2>Fleet ({})</h2>\n<table class=\"fleet\">\n<thead><tr><th>member</th><th>state</th>\
         <th class=\"number\">leases</th><th class=\"number\">target</th><th class=\"number\">bytes per second</th>\
         <th class=\"number\">CPU</th><th class=\"number\">heartbeat</th></tr></thead>\n<tbody>\n",
        members.len()
    )?;
    for member in members {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
        writeln!(
            page,
            "<tr><td class=\"id\">{}{}</td><td>{}</td><td class=\"number\" data-label=\"leases\">{}</td>\
             <td class=\"number\" data-label=\"target\">{}</td>\
             <td class=\"number\" data-label=\"bytes per second\">{}</td>\
             <td class=\"number\" data-label=\"CPU\">{}</td>\
             <td class=\"number\" data-label=\"heartbeat\">{} ago</td></tr>",
            Text(&member.member),
            if member.is_this { " (this worker)" } else { "" },
            member.state,
            member.leases,
            or_dash(member.target.map(|target| target.to_string())),
            bytes(member.bytes_per_second),
            or_dash(member.cpu_thousandths.map(|cpu| format!("{}.{} %", cpu / 10, cpu % 10))),
            millis(member.heartbeat_millis_ago),
        )?;
    }
    page.write_str("</tbody>\n</table>\n")
}

fn write_bill(page: &mut String, bill: &BillDocument) -> fmt::Result {
    page.write_str(
        "<h2>Lease table, per minute</h2>\n<table class=\"bill narrow\">\n<thead><tr><th>operation</th>\
         <th class=\"number\">requests</th><th class=\"number\">read units</th>\
         <th class=\"number\">write units</th></tr></thead>\n<tbody>\n",
    )?;
    let mut sum = RateDocument::default();
    let line = |page: &mut String, name: &str, rate: &RateDocument| {
        writeln!(
            page,
            "<tr><td>{name}</td><td class=\"number\" data-label=\"requests\">{:.1}</td>\
             <td class=\"number\" data-label=\"read units\">{:.1}</td>\
             <td class=\"number\" data-label=\"write units\">{:.1}</td></tr>",
            rate.requests, rate.read_units, rate.write_units
        )
    };
    for (operation, rate) in &bill.per_minute {
        line(page, operation, rate)?;
        sum.requests += rate.requests;
        sum.read_units += rate.read_units;
        sum.write_units += rate.write_units;
    }
    line(page, "all", &sum)?;
    write!(
        page,
        "</tbody>\n</table>\n<p class=\"soft\">counted in this process, which has run for {}</p>\n",
        millis(bill.running_millis)
    )
}
