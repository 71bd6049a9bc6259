"""Lesions of known mass in real scans."""
