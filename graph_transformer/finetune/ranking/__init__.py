"""Rankings trained and measured: questions with known answers, metrics and floors."""
