"""What Gatehouse is measured against: small services, written as the documentation of their parts recommends."""
