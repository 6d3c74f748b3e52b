//! Timers: what one that waits costs in memory, and what arming, cancelling and firing cost.

use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use super::{Plan, Runtime, give_way};
use crate::allocs;
use crate::system::resident;

const MANY: u64 = 100_000;

/// Fired in one batch, over ten milliseconds.
const FIRED: u64 = 10_000;

/// Bytes of each of many pending timers, with the vector that they are kept in: as they are where the runtime's
/// sleep can be moved after it has been polled, in a box each otherwise.
pub(super) async fn bytes<R: Runtime>(plan: &Plan) {
    if !plan.wants("timer_bytes") {
        return;
    }
    // One, so that what the first timer makes is not counted.
    arm(pin!(R::sleep(Duration::from_secs(30)))).await;
    let before = resident();
    let mut pending = Vec::with_capacity(MANY as usize);
    for i in 0..MANY {
        let mut sleep = R::kept_sleep(far(i));
        arm(Pin::new(&mut sleep)).await;
        pending.push(sleep);
    }
    give_way().await;
    let bytes = resident().saturating_sub(before) / MANY;
    let in_flight = R::in_flight().map_or(String::new(), |n| format!(",\"in_flight\":{n}"));
    plan.line("timer_bytes", format!("\"bytes\":{bytes},\"n\":{MANY}{in_flight}"));
    drop(pending);
    give_way().await;
}

pub(super) async fn all<R: Runtime>(plan: &Plan) {
    if plan.wants("timer_cancel_100k") {
        let mut pending = Vec::new();
        for i in 0..MANY {
            pending.push(armed(R::sleep(far(i))).await);
        }
        plan.measure("timer_cancel_100k", 50_000, async |n| {
            for i in 0..n {
                arm(pin!(R::sleep(Duration::from_millis(10 + i % 1000)))).await;
                if i % 1000 == 0 {
                    // For runtimes that tidy up when they turn.
                    give_way().await;
                }
            }
        })
        .await;
        drop(pending);
        give_way().await;
    }
    if plan.wants("timer_fire") {
        let mut pending = Vec::with_capacity(FIRED as usize);
        let times = plan
            .times(plan.clock(), FIRED, async |n| {
                for i in 0..n {
                    pending.push(armed(R::sleep(soon(i))).await);
                }
                for sleep in pending.drain(..) {
                    sleep.await;
                }
            })
            .await;
        let mut more = Vec::new();
        if let Some(each) = allocations_to_fire::<R>().await {
            more.push(("allocs_each", each));
        }
        plan.tell("timer_fire", plan.clock(), &times, FIRED, &more);
    }
}

/// Allocations for each timer that is made, armed, fired and awaited, in a build that counts them. The boxes
/// that the timers are kept in are there before, and are not counted.
async fn allocations_to_fire<R: Runtime>() -> Option<f64> {
    if !allocs::can_count() {
        return None;
    }
    let mut boxes: Vec<_> = (0..FIRED).map(|_| Box::new_uninit()).collect();
    let mut pending = Vec::with_capacity(FIRED as usize);
    allocs::start();
    // One that is known of, which shows that the others would have been seen.
    drop(black_box(Box::new(0_u8)));
    for (i, place) in boxes.drain(..).enumerate() {
        let mut sleep = Box::into_pin(Box::write(place, R::sleep(soon(i as u64))));
        arm(sleep.as_mut()).await;
        pending.push(sleep);
    }
    for sleep in pending.drain(..) {
        sleep.await;
    }
    let (allocations, _) = allocs::counted()?;
    let allocations = allocations.checked_sub(1).expect("the allocator counts");
    Some(allocations as f64 / FIRED as f64)
}

/// Ten milliseconds and a little more, spread.
fn soon(i: u64) -> Duration {
    Duration::from_micros(10_000 + i)
}

/// Half a minute and more, spread.
fn far(i: u64) -> Duration {
    Duration::from_millis(30_000 + i % 60_000)
}

async fn armed<F: Future<Output = ()>>(sleep: F) -> Pin<Box<F>> {
    let mut sleep = Box::pin(sleep);
    arm(sleep.as_mut()).await;
    sleep
}

/// Polls a sleep once, which arms it.
async fn arm(mut sleep: Pin<&mut impl Future<Output = ()>>) {
    poll_fn(|cx| {
        assert!(sleep.as_mut().poll(cx).is_pending(), "a sleep ended before its time");
        Poll::Ready(())
    })
    .await;
}
