-- Harmonic mean of precision and recall, which F1 is: 0 if both are, null if one is.
create macro harmonic_mean(precision, recall) as
    case when precision + recall > 0 then 2 * precision * recall / (precision + recall)
        when precision + recall = 0 then 0
    end;
