//! Spawning and giving way.

use super::{Plan, Runtime, give_way};

pub(super) async fn all<R: Runtime>(plan: &Plan) {
    if plan.wants("spawn_await") {
        plan.measure("spawn_await", 50_000, async |n| {
            for _ in 0..n {
                R::spawn(async {}).await;
            }
        })
        .await;
    }
    if plan.wants("spawn_join_1000") {
        let mut tasks = Vec::with_capacity(1000);
        plan.measure("spawn_join_1000", 100_000, async |n| {
            for _ in 0..n / 1000 {
                tasks.extend((0..1000).map(|_| R::spawn(async {})));
                for task in tasks.drain(..) {
                    task.await;
                }
            }
        })
        .await;
    }
    if plan.wants("yield_root") {
        plan.measure("yield_root", 200_000, async |n| yields(n).await).await;
    }
    if plan.wants("yield_one") {
        plan.measure("yield_one", 200_000, async |n| R::spawn(yields(n)).await).await;
    }
    if plan.wants("yield_two") {
        plan.measure("yield_two", 200_000, async |n| {
            let one = R::spawn(yields(n / 2));
            let other = R::spawn(yields(n / 2));
            one.await;
            other.await;
        })
        .await;
    }
}

async fn yields(n: u64) {
    for _ in 0..n {
        give_way().await;
    }
}
