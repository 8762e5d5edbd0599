//! Progress bars: on a terminal, on standard error, and nowhere else.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Out;

/// A bar over bytes, or over a count when `bytes` says how much that is in all.
pub fn bar(out: &Out, what: &str, bytes: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(bytes), target(out));
    let template =
        "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
    bar.set_style(style(template));
    bar.set_message(what.to_owned());
    bar
}

/// A bar over a share of 100.
pub fn part(out: &Out, what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(100), target(out));
    bar.set_style(style("{msg} {wide_bar} {percent}% {elapsed}"));
    bar.set_message(what.to_owned());
    bar
}

fn target(out: &Out) -> ProgressDrawTarget {
    if out.draws() { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file; a bad one would show as the default style.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
