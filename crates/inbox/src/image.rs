//! Pictures among bodies. What counts as one is said by its first bytes, never by its sender, and only the
//! raster formats that every browser decodes itself are shown: a drawing may hold a script.

/// Pictures up to this size are shown; larger ones are a download.
const SHOWN_BYTES_MAX: usize = 20 << 20;

/// The type of a body that is a picture.
pub(crate) fn kind(body: &[u8]) -> Option<&'static str> {
    if body.len() > SHOWN_BYTES_MAX {
        return None;
    }
    match body {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_known_by_its_bytes() {
        for (body, expected) in [
            (&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], Some("image/png")),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", Some("image/jpeg")),
            (b"GIF89a\x01\0", Some("image/gif")),
            (b"RIFF\x24\0\0\0WEBPVP8 ", Some("image/webp")),
            (b"\x89PNG", None),
            (b"GIF88a", None),
            (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", None),
            (b"<!doctype html>", None),
            (b"", None),
        ] {
            assert_eq!(kind(body), expected);
        }
        let mut large = vec![0; SHOWN_BYTES_MAX + 1];
        large[..8].copy_from_slice(b"\x89PNG\r\n\x1a\n");
        assert_eq!(kind(&large), None);
    }
}
