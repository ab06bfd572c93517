//! Numbers in few columns.

/// A duration of three significant digits, at most six columns.
pub(super) fn duration(nanos: u64) -> String {
    let scaled = |unit: f64| three_digits(nanos as f64 / unit);
    match nanos {
        0..999_500 => format!("{}us", scaled(1e3)),
        999_500..999_500_000 => format!("{}ms", scaled(1e6)),
        999_500_000..999_500_000_000 => format!("{}s", scaled(1e9)),
        _ => format!("{}m", nanos / 60_000_000_000),
    }
}

fn three_digits(value: f64) -> String {
    if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// Events per second, at most six columns.
pub(super) fn rate(per_second: f64) -> String {
    if per_second < 99_999.5 {
        three_digits(per_second)
    } else {
        count(per_second as u64)
    }
}

/// A number, with `k`, `M` or `G` once it is long.
pub(super) fn count(number: u64) -> String {
    match number {
        0..100_000 => number.to_string(),
        100_000..10_000_000 => format!("{}k", number / 1_000),
        10_000_000..10_000_000_000 => format!("{}M", number / 1_000_000),
        _ => format!("{}G", number / 1_000_000_000),
    }
}

/// A share in percent; a dash for none, and never `0` or `100` for what is not.
pub(super) fn share(part: u64, whole: u64) -> String {
    if part == 0 || whole == 0 {
        return "-".to_owned();
    }
    let percent = part as f64 / whole as f64 * 100.0;
    if percent < 0.1 {
        "<0.1".to_owned()
    } else if part < whole && percent > 99.9 {
        ">99.9".to_owned()
    } else if percent < 9.95 {
        format!("{percent:.1}")
    } else {
        format!("{percent:.0}")
    }
}

/// Hours, minutes and seconds, without those that are zero at the front.
pub(super) fn elapsed(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds:02}s"),
        _ => format!("{hours}h{minutes:02}m"),
    }
}

/// One column per pair of values, scaled to the largest of all.
pub(super) fn sparkline(values: &[u32]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = u64::from(values.iter().copied().max().unwrap_or(0));
    values
        .iter()
        .map(|&value| {
            if value == 0 {
                return ' ';
            }
            let step = (u64::from(value) * BARS.len() as u64).div_ceil(most) as usize;
            BARS.get(step - 1).copied().unwrap_or('█')
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_in_six_columns() {
        for (nanos, expected) in [
            (0, "0.00us"),
            (850, "0.85us"),
            (230_400, "230us"),
            (999_499, "999us"),
            (999_500, "1.00ms"),
            (26_440_000, "26.4ms"),
            (99_960_000, "100ms"),
            (1_204_000_000, "1.20s"),
            (999_499_999_999, "999s"),
            (1_200_000_000_000, "20m"),
            (u64::MAX, "307445734m"),
        ] {
            assert_eq!(duration(nanos), expected);
        }
    }

    #[test]
    fn rates_counts_and_shares_are_short_and_true_at_their_ends() {
        assert_eq!(rate(0.0), "0.00");
        assert_eq!(rate(27.64), "27.6");
        assert_eq!(rate(99_999.0), "99999");
        assert_eq!(rate(250_000.0), "250k");
        assert_eq!(count(99_999), "99999");
        assert_eq!(count(12_345_678), "12M");
        assert_eq!(count(u64::MAX), "18446744073G");
        assert_eq!(share(0, 10), "-");
        assert_eq!(share(1, 10_000), "<0.1");
        assert_eq!(share(9_999, 10_000), ">99.9");
        assert_eq!(share(5, 5), "100");
        assert_eq!(share(1, 16), "6.2");
        assert_eq!(elapsed(59), "59s");
        assert_eq!(elapsed(62), "1m02s");
        assert_eq!(elapsed(36_610), "10h10m");
    }

    #[test]
    fn the_largest_value_is_a_full_bar_and_only_zero_is_blank() {
        assert_eq!(sparkline(&[0, 1, 50, 100]), " ▁▄█");
        assert_eq!(sparkline(&[0, 0]), "  ");
        assert_eq!(sparkline(&[u32::MAX, 1]), "█▁");
    }
}
