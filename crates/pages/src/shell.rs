//! Text as a word of a shell's command line, for commands that people copy.
//!
//! They are pasted into a terminal, and parts of them were chosen by strangers: nothing leaves its quotes, and no
//! control character reaches the terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::inert::acts;

/// `text` as one word of a shell: plain where possible, else in single quotes, else in `$'…'`.
pub fn quoted(text: &str) -> Cow<'_, str> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte)) {
        return Cow::Borrowed(text);
    }
    if !text.chars().any(|char| char.is_control() || acts(char)) {
        return Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")));
    }
    let mut word = String::from("$'");
    for char in text.chars() {
        let _ = match char {
            '\'' => write!(word, "\\'"),
            '\\' => write!(word, "\\\\"),
            '\n' => write!(word, "\\n"),
            '\t' => write!(word, "\\t"),
            '\0'..='\x1f' | '\x7f' => write!(word, "\\x{:02x}", u32::from(char)),
            _ if char.is_control() || acts(char) => write!(word, "\\U{:08x}", u32::from(char)),
            _ => write!(word, "{char}"),
        };
    }
    word.push('\'');
    Cow::Owned(word)
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_word_stays_one_and_acts_on_nothing() {
        for (text, word) in [
            ("plain-1.txt", "plain-1.txt"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's $HOME", r"'it'\''s $HOME'"),
            ("a'\x1b\n\u{202e}", r"$'a\'\x1b\n\U0000202e'"),
        ] {
            assert_eq!(quoted(text), word);
        }
    }
}
