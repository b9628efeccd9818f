//! The workloads and trade-off runs that `bench` knows, for its help.

use hedgerow_bench::WORKLOADS;
use hedgerow_bench::suite::plan::Work;
use hedgerow_bench::suite::scenarios::Trial;

/// A line for each: its name and what it shows.
pub fn text() -> String {
    let mut text = "Workloads:\n".to_owned();
    for workload in &WORKLOADS {
        push(&mut text, workload.name, workload.about);
    }
    text.push_str("\nTrade-off runs:\n");
    for name in Trial::NAMES {
        // A run whose name asks for a number is looked up with one.
        let request = match name.split_once(':') {
            Some((name, _)) => format!("{name}:1"),
            None => name.to_owned(),
        };
        let about = request
            .parse()
            .map_or_else(|_| String::new(), |work: Work| work.about());
        push(&mut text, name, &about);
    }
    text.truncate(text.trim_end().len());
    text
}

fn push(text: &mut String, name: &str, about: &str) {
    text.push_str(&format!("  {name:18} {about}\n"));
}
