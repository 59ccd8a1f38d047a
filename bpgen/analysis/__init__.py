"""Statistics over seeds on tidy tables: matched losses, effects, correlations, verdicts. Knows no rule and no paper."""
