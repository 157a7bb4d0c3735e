//! Text that strangers wrote, made harmless to look at: what would be invisible, or would change
//! what stands around it, is shown by its name.
//!
//! Markup needs no care here: templates escape it, the script inserts text nodes.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` with control, bidirectional and invisible characters shown instead of obeyed. Line feeds
/// and tabs stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    let Some((first, _)) = text.char_indices().find(|(_, char)| acts(*char)) else {
        return Cow::Borrowed(text);
    };
    let mut shown = String::with_capacity(text.len() + 16);
    shown.push_str(&text[..first]);
    for char in text[first..].chars() {
        match char {
            '\r' | '\n' | '\t' if !acts(char) => shown.push(char),
            '\0'..='\x1f' => shown.push(picture(0x2400 + u32::from(char))),
            '\x7f' => shown.push(picture(0x2421)),
            _ if acts(char) => {
                let _ = write!(shown, "⟨U+{:04X}⟩", u32::from(char));
            }
            _ => shown.push(char),
        }
    }
    Cow::Owned(shown)
}

/// Whether a character does something else than stand there.
pub fn acts(char: char) -> bool {
    match char {
        '\n' | '\t' => false,
        _ if char.is_control() => true,
        // Marks, embeddings, overrides and isolates of writing direction; line separators.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        // Without width or shape. Joiners (U+200C, U+200D) are part of scripts and emoji.
        '\u{ad}' | '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' => true,
        '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => true,
        _ => false,
    }
}

/// Unicode's picture of a control character.
fn picture(code: u32) -> char {
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_shown_by_its_name() {
        assert_eq!(visible("\x1b[31mred\0\x7f\r\n\t"), "␛[31mred␀␡␍\n\t");
        assert_eq!(visible("user\u{202e}txt.exe"), "user⟨U+202E⟩txt.exe");
        assert_eq!(visible("a\u{85}b\u{200b}c\u{e0041}"), "a⟨U+0085⟩b⟨U+200B⟩c⟨U+E0041⟩");
    }

    #[test]
    fn ordinary_text_of_any_script_stays_and_is_not_copied() {
        for text in ["", "plain", "naïve — 日本語 — עברית — 👩‍💻", "a\n\tb", "<script>&"]
        {
            assert!(matches!(visible(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }
}
