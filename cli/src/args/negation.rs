//! Filter terms that look like options.

use std::ffi::OsString;

use piperoll_shared::log::filter::is_key;

/// A filter term may begin with a minus (`-outcome:success`), which looks like an option. A blank in front,
/// which the filter language passes over, keeps the two apart.
pub(crate) fn protect_negation(arg: OsString) -> OsString {
    let is_term = arg.to_str().and_then(|text| text.strip_prefix('-')).is_some_and(|rest| {
        rest.starts_with(['"', '(']) || rest.split_once([':', '=']).is_some_and(|(key, _)| is_key(key))
    });
    if !is_term {
        return arg;
    }
    let mut protected = OsString::from(" ");
    protected.push(arg);
    protected
}
