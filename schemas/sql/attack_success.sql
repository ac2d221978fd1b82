-- What adversarial triggers do to a model: one row per evaluation, trigger and gold class
-- (Hao et al. 2021), over the instances that the trigger could be put into.
--
-- A trigger is made of the tokens that the two largest attributions of an instance's strongest head
-- connect. `success` leaves out what was wrong before, so it is not the difference of the two
-- accuracies: an instance that the trigger makes right counts in accuracy_after alone.
--
-- What fools it: any added tokens change some predictions, so hold a random trigger beside it; only
-- texts that were right count, and those near the boundary are the first to turn.
--
-- Metrics:
--   success  higher is a stronger trigger; 0 to 1
--
-- Columns:
--   trigger          The trigger's tokens, joined by blanks
--   n                Number of instances
--   skipped          Number of those too long for the trigger, or without a second text
--   accuracy_before  Share predicted rightly as they are; null if there is no instance
--   accuracy_after   Share predicted rightly with the trigger
--   success          Of those predicted rightly before, the share that no longer is; null if none was
create view attack_success as
select
    evaluation,
    method,
    corpus,
    split,
    rank,
    source_id,
    explained,
    array_to_string(tokens, ' ') as trigger,
    score,
    gold,
    n,
    skipped,
    correct_before / nullif(n, 0) as accuracy_before,
    correct_after / nullif(n, 0) as accuracy_after,
    flipped / nullif(correct_before, 0) as success
from attacks
order by evaluation, rank, gold;
