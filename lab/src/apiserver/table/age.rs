//! How long ago something was, as `kubectl` says it.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::apiserver::object::text;

/// The age of an object.
pub(crate) fn age(object: &Value, now: i64) -> Value {
    since(&object["metadata"]["creationTimestamp"], now)
}

/// The time since an RFC 3339 timestamp.
pub(super) fn since(timestamp: &Value, now: i64) -> Value {
    match text(timestamp).parse::<Timestamp>() {
        Ok(time) => json!(duration(now - time.as_second())),
        Err(_) => json!("<unknown>"),
    }
}

/// A duration in two units at most, the finer one only while it matters (apimachinery `HumanDuration`).
fn duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |big: i64, unit: char, small: i64, small_unit: char| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    match () {
        () if seconds < -1 => "<invalid>".to_owned(),
        () if seconds < 0 => "0s".to_owned(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two(days, 'd', hours % 24, 'h'),
        () if days < 730 => format!("{days}d"),
        () if days < 2920 => two(days / 365, 'y', days % 365, 'd'),
        () => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_kubectl_prints_them() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (601, "10m"),
            (7200, "120m"),
            (10800, "3h"),
            (10860, "3h1m"),
            (29000, "8h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (800_000, "9d"),
            (64_000_000, "2y10d"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn an_object_without_a_time_has_no_age() {
        assert_eq!(age(&json!({}), 0), "<unknown>");
        assert_eq!(age(&json!({"metadata": {"creationTimestamp": "1970-01-01T00:00:10Z"}}), 70), "60s");
    }
}
