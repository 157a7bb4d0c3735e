//! Functions of an app that tests of several kinds call.

/// One that waits and lets go when it is told to, and one that never does. Each notes that it has begun, and where.
pub(crate) const HOLDING: &str = r#"
import asyncio, os, time
HERE = os.path.dirname(os.path.abspath(__file__))

def note(name):
    with open(os.path.join(HERE, name), "a") as f:
        f.write("%d\n" % os.getpid())

async def sleepy():
    note("sleepy")
    await asyncio.sleep(600)

def who():
    return os.getpid()

def stubborn():
    note("stubborn")
    while True:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            pass
"#;
