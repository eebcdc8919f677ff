"""Strategies side by side: equal budgets, equally many learning rates, fresh seeds, intervals."""
